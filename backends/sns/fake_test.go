package sns_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// fakeSNS answers Publish and PublishBatch of the query protocol (version
// 2010-03-31) and fails on command.
type fakeSNS struct {
	server *httptest.Server

	mu       sync.Mutex
	fail     func(form url.Values) *failure // of a whole call
	failOne  func(m published) *failure     // of one message
	silent   bool                           // batches are answered without verdicts
	calls    []url.Values
	accepted []published
	problems []string
}

// published is one message; attributes as "Type:value".
type published struct {
	Topic, Message, Structure, Group, Deduplication string
	Attributes                                      map[string]string
}

type failure struct {
	status        int // of the answer, when the whole call fails
	code, message string
	senderFault   bool
	header        http.Header
}

func startFake(t testing.TB) *fakeSNS {
	f := &fakeSNS{}
	f.server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.server.Close()
		for _, p := range f.problems {
			t.Error("request to SNS: " + p)
		}
	})
	return f
}

func (f *fakeSNS) address() string { return f.server.Listener.Addr().String() }

func (f *fakeSNS) messages() []published {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]published(nil), f.accepted...)
}

// requests returns the forms of the calls with that action.
func (f *fakeSNS) requests(action string) []url.Values {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []url.Values
	for _, form := range f.calls {
		if form.Get("Action") == action {
			found = append(found, form)
		}
	}
	return found
}

func (f *fakeSNS) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the client has gone
	}
	form, err := url.ParseQuery(string(body))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.check(req, form, err)
	f.calls = append(f.calls, form)
	if f.fail != nil {
		if fail := f.fail(form); fail != nil {
			refuse(w, fail)
			return
		}
	}
	switch form.Get("Action") {
	case "Publish":
		f.publish(w, form)
	case "PublishBatch":
		f.publishBatch(w, form)
	}
}

// check notes what Amazon would not have accepted.
func (f *fakeSNS) check(req *http.Request, form url.Values, err error) {
	problem := func(format string, args ...any) { f.problems = append(f.problems, fmt.Sprintf(format, args...)) }
	auth := req.Header.Get("Authorization")
	if err != nil || form.Get("Version") != "2010-03-31" || form.Get("TopicArn") == "" {
		problem("form %v: %v", form, err)
	}
	if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential="+accessKey+"/") || !strings.Contains(auth, "/"+region+"/sns/aws4_request") ||
		!strings.Contains(auth, "Signature=") || req.Header.Get("X-Amz-Date") == "" {
		problem("not signed for %s: %q", region, auth)
	}
	if action := form.Get("Action"); action != "Publish" && action != "PublishBatch" {
		problem("action %q", action)
	}
}

func (f *fakeSNS) publish(w http.ResponseWriter, form url.Values) {
	m := readMessage(form, "")
	if fail := f.verdict(m); fail != nil {
		refuse(w, fail)
		return
	}
	f.accepted = append(f.accepted, m)
	io.WriteString(w, `<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>`)
}

func (f *fakeSNS) publishBatch(w http.ResponseWriter, form url.Values) {
	var done, failed strings.Builder
	ids := map[string]bool{}
	size := 0
	for i := 1; ; i++ {
		prefix := fmt.Sprintf("PublishBatchRequestEntries.member.%d.", i)
		id := form.Get(prefix + "Id")
		if id == "" {
			break
		}
		if ids[id] {
			refuse(w, &failure{status: 400, code: "BatchEntryIdsNotDistinct"})
			return
		}
		ids[id] = true
		m := readMessage(form, prefix)
		m.Topic = form.Get("TopicArn")
		size += len(m.Message)
		if fail := f.verdict(m); fail != nil {
			fmt.Fprintf(&failed, "<member><Id>%s</Id><Code>%s</Code><Message>%s</Message><SenderFault>%t</SenderFault></member>", id, fail.code, escape(fail.message), fail.senderFault)
			continue
		}
		f.accepted = append(f.accepted, m)
		fmt.Fprintf(&done, "<member><Id>%s</Id><MessageId>%d</MessageId></member>", id, i)
	}
	if len(ids) > 10 || size > 256<<10 {
		refuse(w, &failure{status: 400, code: "BatchRequestTooLong"})
		return
	}
	if f.silent {
		done.Reset()
		failed.Reset()
	}
	fmt.Fprintf(w, `<PublishBatchResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishBatchResult><Successful>%s</Successful><Failed>%s</Failed></PublishBatchResult></PublishBatchResponse>`,
		done.String(), failed.String())
}

func (f *fakeSNS) verdict(m published) *failure {
	if m.Message == "" {
		return &failure{status: 400, code: "InvalidParameter", message: "Empty message", senderFault: true}
	}
	if f.failOne == nil {
		return nil
	}
	return f.failOne(m)
}

func readMessage(form url.Values, prefix string) published {
	m := published{
		Topic: form.Get("TopicArn"), Message: form.Get(prefix + "Message"), Structure: form.Get(prefix + "MessageStructure"),
		Group: form.Get(prefix + "MessageGroupId"), Deduplication: form.Get(prefix + "MessageDeduplicationId"),
		Attributes: map[string]string{},
	}
	for i := 1; ; i++ {
		entry := fmt.Sprintf("%sMessageAttributes.entry.%d.", prefix, i)
		name := form.Get(entry + "Name")
		if name == "" {
			return m
		}
		m.Attributes[name] = form.Get(entry+"Value.DataType") + ":" + form.Get(entry+"Value.StringValue")
	}
}

func refuse(w http.ResponseWriter, fail *failure) {
	for name, values := range fail.header {
		w.Header()[name] = values
	}
	w.WriteHeader(max(fail.status, 400))
	fmt.Fprintf(w, `<ErrorResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>r</RequestId></ErrorResponse>`,
		fail.code, escape(fail.message))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
