package sns_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/sns"
	"eventpusher/config"
	"eventpusher/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	region    = "eu-west-1"
	account   = "123456789012"
	accessKey = "AKIAEXAMPLE"
	secretKey = "s3cr3t/key"
	arn       = "arn:aws:sns:" + region + ":" + account + ":"
)

func options(host string) config.SNS {
	return config.SNS{
		PresenceUpdatesTopic: "user_presence_updated", PMMessagesTopic: "user_message_sent", MUCMessagesTopic: "user_messagegroup_sent",
		Host: host, Region: region, AccessKeyID: accessKey, SecretAccessKey: secretKey, AccountID: account,
		PoolSize: 4, PublishRetryCount: 2, PublishRetryTime: 50e6,
	}
}

// startBackend returns a backend for a fake; change may alter its options.
func startBackend(t testing.TB, change func(*config.SNS)) (*fakeSNS, *sns.Backend) {
	t.Helper()
	f := startFake(t)
	c := options(f.server.URL)
	if change != nil {
		change(&c)
	}
	b, err := sns.New(sns.Options{Name: sns.Name, Section: c, Hosts: []string{"localhost", "example.org"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return f, b
}

// delivered reads a message back.
func delivered(t testing.TB, message string, attributes map[string]string) backendtest.Delivery {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(message))
	decoder.UseNumber()
	fields := map[string]any{}
	if err := decoder.Decode(&fields); err != nil {
		t.Errorf("message %q: %v", message, err)
	}
	d := backendtest.Delivery{Metadata: map[string]string{}}
	d.Body, _ = fields["message"].(string)
	for name, value := range attributes {
		kind, text, _ := strings.Cut(value, ":")
		if name == "event_id" {
			d.ID = text
			continue
		}
		d.Metadata[name] = text
		if _, number := fields[name].(json.Number); number != (kind == "Number") {
			t.Errorf("attribute %s of type %s stands beside %v in the JSON", name, kind, fields[name])
		}
		if top := event.Metadata(fields); top[name] == nil {
			t.Errorf("metadata %s is not in the JSON %s", name, message)
		}
	}
	return d
}

func TestConformance(t *testing.T) {
	for _, linger := range []time.Duration{0, time.Millisecond} {
		t.Run(linger.String(), func(t *testing.T) { conforms(t, linger) })
	}
}

func conforms(t *testing.T, linger time.Duration) {
	backendtest.Run(t, func(t *testing.T) backendtest.Service {
		f := startFake(t)
		return backendtest.Service{
			Address: f.address(),
			New: func(address string, log *slog.Logger) (backends.Backend, error) {
				c := options("http://" + address)
				c.Linger = linger
				return sns.New(sns.Options{Name: sns.Name, Section: c, Hosts: []string{"localhost"}, Log: log})
			},
			Deliveries: func() []backendtest.Delivery {
				var all []backendtest.Delivery
				for _, m := range f.messages() {
					all = append(all, delivered(t, m.Message, m.Attributes))
				}
				return all
			},
			Refuse: func(e *event.Event) string {
				id := e.ID
				f.mu.Lock()
				defer f.mu.Unlock()
				f.failOne = func(m published) *failure {
					if m.Attributes["event_id"] == "String:"+id {
						return &failure{status: 400, code: "InvalidParameter", message: "no", senderFault: true}
					}
					return nil
				}
				return "permanent"
			},
			Secrets: []string{secretKey},
		}
	})
}

func TestGoldenSession(t *testing.T) {
	for _, structured := range []bool{false, true} {
		for _, step := range backendtest.Golden(t) {
			t.Run(step.Name, func(t *testing.T) {
				f, b := startBackend(t, func(c *config.SNS) { c.MessageStructureJSON = structured })
				for _, err := range b.Publish(t.Context(), backendtest.Wanted(b.Wants, step.Events)) {
					if err != nil {
						t.Error(err)
					}
				}
				var got []backendtest.SNSMessage
				for _, m := range f.messages() {
					topic, ok := strings.CutPrefix(m.Topic, arn)
					if !ok || (m.Structure == "json") != structured {
						t.Errorf("topic %s, structure %q", m.Topic, m.Structure)
					}
					got = append(got, backendtest.SNSMessage{Topic: topic, Payload: backendtest.JSON(t, m.Message)})
				}
				if diff := cmp.Diff(step.SNS, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("(-MongooseIM +got):\n%s", diff)
				}
			})
		}
	}
}

func TestBatchesBySizeAndTopic(t *testing.T) {
	f, b := startBackend(t, nil)
	batch := backendtest.Messages(0, 13)
	batch[3] = event.Event{ID: "a", Kind: event.UserStatus, From: "alice@localhost/r", User: "alice@localhost", Online: true}
	for i := 5; i < 8; i++ {
		batch[i].Body = strings.Repeat("x", 120<<10)
	}
	for i, err := range b.Publish(t.Context(), batch) {
		if err != nil {
			t.Errorf("event %d: %v", i, err)
		}
	}
	if got := len(f.messages()); got != len(batch) {
		t.Errorf("%d messages, want %d", got, len(batch))
	}
	// 0-2, 4-6 in one call; 3 alone; 7-12 in another.
	if got := []int{len(f.requests("PublishBatch")), len(f.requests("Publish"))}; !cmp.Equal(got, []int{2, 1}) {
		t.Errorf("%v calls of PublishBatch and Publish, want [2 1]", got)
	}
}

func TestTooLarge(t *testing.T) {
	f, b := startBackend(t, nil)
	batch := backendtest.Messages(0, 3)
	batch[1].Body = strings.Repeat("x", 256<<10)
	errs := b.Publish(t.Context(), batch)
	if errs[0] != nil || errs[2] != nil || backends.Reason(errs[1]) != "too_large" {
		t.Errorf("%v, want only the second too large", errs)
	}
	if got := len(f.messages()); got != 2 {
		t.Errorf("%d messages, want 2", got)
	}
}

func TestPartialFailure(t *testing.T) {
	codes := []string{"", "InternalError", "InvalidParameter", "Throttled", "AuthorizationError", "KMSThrottling", "Whatever", "KMSDisabled"}
	senderFault := []bool{false, false, true, true, true, false, true, true}
	want := []string{"", "transient", "permanent", "retry_after", "paused", "retry_after", "permanent", "paused"}
	f, b := startBackend(t, nil)
	batch := backendtest.Messages(0, len(codes))
	f.failOne = func(m published) *failure {
		for i := range batch {
			if m.Attributes["event_id"] == "String:"+batch[i].ID && codes[i] != "" {
				return &failure{code: codes[i], message: "why", senderFault: senderFault[i]}
			}
		}
		return nil
	}
	errs := b.Publish(t.Context(), batch)
	for i, err := range errs {
		if got := backends.Reason(err); got != want[i] {
			t.Errorf("%s: %v (%q), want %q", codes[i], err, got, want[i])
		}
	}
}

func TestBatchWithoutVerdicts(t *testing.T) {
	f, b := startBackend(t, nil)
	f.silent = true
	for i, err := range b.Publish(t.Context(), backendtest.Messages(0, 2)) {
		if backends.Reason(err) != "transient" {
			t.Errorf("event %d: %v, want a transient error", i, err)
		}
	}
}

func TestCallFailures(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fail   failure
		want   string
		detail string
	}{
		{"throttled by code", failure{status: 400, code: "Throttling", message: "Rate exceeded"}, "retry_after", "after 1s"},
		{"throttled by status", failure{status: 429, code: "Slow", header: http.Header{"Retry-After": {"7"}}}, "retry_after", "after 7s"},
		{"access denied", failure{status: 403, code: "AuthorizationError", message: "not authorized"}, "paused", "sns:Publish"},
		{"unknown key", failure{status: 403, code: "InvalidClientTokenId"}, "paused", "access_key_id"},
		{"wrong secret", failure{status: 403, code: "SignatureDoesNotMatch", message: strings.Repeat("canonical ", 1000)}, "paused", "secret_access_key"},
		{"no such topic", failure{status: 404, code: "NotFound", message: "Topic does not exist"}, "paused", "create the topic"},
		{"impossible topic", failure{status: 400, code: "InvalidParameter", message: "Invalid parameter: TopicArn"}, "paused", "account_id"},
		{"bad clock", failure{status: 403, code: "RequestExpired"}, "paused", "clock"},
		{"key disabled", failure{status: 400, code: "KMSDisabledException"}, "paused", "encryption key"},
		{"bad message", failure{status: 400, code: "InvalidParameter", message: "Invalid parameter: Message"}, "permanent", "Message"},
		{"internal", failure{status: 500, code: "InternalError"}, "transient", "InternalError"},
		{"unavailable", failure{status: 503, code: "ServiceUnavailable"}, "transient", "ServiceUnavailable"},
		{"unknown", failure{status: 418, code: "Teapot"}, "transient", "Teapot"},
	} {
		for _, n := range []int{1, 3} {
			t.Run(tc.name, func(t *testing.T) {
				f, b := startBackend(t, nil)
				f.fail = func(url.Values) *failure { return &tc.fail }
				for i, err := range b.Publish(t.Context(), backendtest.Messages(0, n)) {
					if backends.Reason(err) != tc.want || !strings.Contains(err.Error(), tc.detail) || len(err.Error()) > 600 {
						t.Errorf("event %d: %v (%q), want %q with %q", i, err, backends.Reason(err), tc.want, tc.detail)
					}
				}
				calls := len(f.requests("Publish")) + len(f.requests("PublishBatch"))
				if want := 1; tc.want != "permanent" && calls != want {
					t.Errorf("%d calls, want %d: the SDK must not retry", calls, want)
				}
			})
		}
	}
}

func TestAnswerThatIsNotSNS(t *testing.T) {
	f, b := startBackend(t, nil)
	f.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		w.Write([]byte("<html>bad gateway</html>"))
	})
	err := b.Publish(t.Context(), backendtest.Messages(0, 1))[0]
	if backends.Reason(err) != "transient" || !strings.Contains(err.Error(), "502") {
		t.Errorf("%v, want a transient error that names 502", err)
	}
}

// A batch that is refused as a whole must not cost the innocent.
func TestRefusedBatchIsTriedEntryByEntry(t *testing.T) {
	f, b := startBackend(t, nil)
	batch := backendtest.Messages(0, 4)
	bad := batch[2].ID
	f.fail = func(form url.Values) *failure {
		for _, values := range form {
			if values[0] == bad {
				return &failure{status: 400, code: "InvalidParameter", message: "Invalid parameter: Message"}
			}
		}
		return nil
	}
	for i, err := range b.Publish(t.Context(), batch) {
		want := ""
		if i == 2 {
			want = "permanent"
		}
		if got := backends.Reason(err); got != want {
			t.Errorf("event %d: %v (%q), want %q", i, err, got, want)
		}
	}
	if got := len(f.messages()); got != 3 {
		t.Errorf("%d messages, want 3", got)
	}
}

// TestFIFO: the message group is the conversation, and the event's id tells repetitions.
func TestFIFO(t *testing.T) {
	f, b := startBackend(t, func(c *config.SNS) { c.PMMessagesTopic = "chat.fifo" })
	batch := backendtest.Messages(0, 2)
	again := backendtest.Message(2)
	again.From, again.User = batch[0].From, batch[0].User // the key of the first
	for _, events := range [][]event.Event{batch, {again}} {
		for i, err := range b.Publish(t.Context(), events) {
			if err != nil {
				t.Errorf("event %d: %v", i, err)
			}
		}
	}
	groups := map[string][]string{}
	for _, m := range f.messages() {
		if len(m.Group) != 32 || m.Topic != arn+"chat.fifo" {
			t.Errorf("group %q on %s", m.Group, m.Topic)
		}
		groups[m.Group] = append(groups[m.Group], m.Deduplication)
	}
	one, two := false, false
	for _, ids := range groups {
		one = one || cmp.Equal(ids, []string{batch[1].ID})
		two = two || cmp.Equal(ids, []string{batch[0].ID, again.ID})
	}
	if len(groups) != 2 || !one || !two {
		t.Errorf("groups %v", groups)
	}
}

// TestEpoch: the epoch is an attribute only where several instances share the outbox, and takes
// the place of the last of the metadata.
func TestEpoch(t *testing.T) {
	f, b := startBackend(t, nil)
	e := backendtest.Message(0)
	e.Metadata = event.Metadata{"eventpusher-epoch": "own"}
	for _, c := range "abcdefghi" {
		e.Metadata[string(c)] = "x"
	}
	for _, ctx := range []context.Context{t.Context(), backends.WithEpoch(t.Context(), 1<<60)} {
		if err := b.Publish(ctx, []event.Event{e})[0]; err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"event_id": "String:" + e.ID, "eventpusher-epoch": "String:own"}
	for _, c := range "abcdefgh" {
		want[string(c)] = "String:x"
	}
	if diff := cmp.Diff(want, f.messages()[0].Attributes); diff != "" {
		t.Errorf("one instance (-want +got):\n%s", diff)
	}
	want["eventpusher-epoch"] = "Number:1152921504606846976"
	if diff := cmp.Diff(want, f.messages()[1].Attributes); diff != "" {
		t.Errorf("several (-want +got):\n%s", diff)
	}
}

func TestAttributes(t *testing.T) {
	var logged bytes.Buffer
	f := startFake(t)
	b, err := sns.New(sns.Options{Name: sns.Name, Section: options(f.server.URL), Log: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	e := backendtest.Message(0)
	e.Metadata = event.Metadata{
		"text": "ä", "yes": true, "int": int64(-3), "float": 1.5, "control": "a\x00b\ufffe", "a.b-c_D": "x",
		"empty": "", "sp ace": "x", ".dot": "x", "a..b": "x", "AWS.x": "x", "żółw": "x", "event_id": "forged",
	}
	for range 2 {
		if err := b.Publish(t.Context(), []event.Event{e})[0]; err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{
		"text": "String:ä", "yes": "String:true", "int": "Number:-3", "float": "Number:1.5", "control": "String:a\ufffdb\ufffd",
		"a.b-c_D": "String:x", "event_id": "String:" + e.ID,
	}
	if diff := cmp.Diff(want, f.messages()[0].Attributes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := strings.Count(logged.String(), "cannot be a message attribute"); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, logged.String())
	}

	logged.Reset()
	e.Metadata = event.Metadata{}
	for _, c := range "qwertyuiopasdf" {
		e.Metadata[string(c)] = "x"
	}
	b.Publish(t.Context(), []event.Event{e, e})
	want = map[string]string{"event_id": "String:" + e.ID}
	for _, c := range "adefiopqr" {
		want[string(c)] = "String:x"
	}
	if diff := cmp.Diff(want, f.messages()[3].Attributes); diff != "" {
		t.Errorf("of 14 the first 9 beside the id (-want +got):\n%s", diff)
	}
	if n := strings.Count(logged.String(), "more metadata than message attributes"); n != 1 || b.Counts()["attributes_cut"] == 0 {
		t.Errorf("%d warnings, want 1:\n%s", n, logged.String())
	}
}

func TestCallTimesOutByContext(t *testing.T) {
	f := startFake(t)
	proxy := backendtest.StartProxy(t, f.address())
	proxy.Hang()
	b, err := sns.New(sns.Options{Name: sns.Name, Section: options("http://" + proxy.Address()), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	if err := b.Publish(ctx, backendtest.Messages(0, 1))[0]; backends.Reason(err) != "timeout" {
		t.Errorf("%v, want a timeout", err)
	}
}
