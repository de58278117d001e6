//go:build linux

package harness

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// SNSAccountID is the only account that the emulator knows.
const SNSAccountID = "000000000000"

// SNSEmulator is a running emulator of Amazon SNS (and of the SQS that its
// topics feed). It keeps everything in memory. It accepts any credentials. Its
// methods fail the test it was made for; they are for one goroutine at a time.
type SNSEmulator struct {
	// Region is the region of its topics; requests must be signed for it.
	Region string
	// Port is its port on 127.0.0.1; it survives Stop and Start.
	Port int

	t      testing.TB
	s      *server
	client *http.Client
	topics []string
	past   map[string][]SNSMessage // by topic, from before the last Stop
}

// SNSMessage is one message as a subscriber of the topic gets it.
type SNSMessage struct {
	TopicARN   string
	Message    string
	Subject    string
	Attributes map[string]SNSAttribute
	// GroupID and DeduplicationID are set on FIFO topics only.
	GroupID, DeduplicationID string
}

// SNSAttribute is a message attribute, such as String "alice@localhost".
type SNSAttribute struct{ Type, Value string }

// SNSCall is one request as the emulator got it, whether it accepted it or not.
type SNSCall struct {
	// Form holds the parameters of the query protocol, Action among them.
	Form map[string]string
	// Authorization is the header with the signature and its region.
	Authorization string
}

// SNS starts an emulator for one test; that takes about half a second.
func SNS(t testing.TB) *SNSEmulator {
	t.Helper()
	const region = "eu-west-1" // not the emulator's default, so that a forgotten region shows
	s, ports := startServer(t, "sns", 1, func(s *server, ports []int) error {
		return prepareSNS(s, ports[0], region)
	})
	client := &http.Client{Transport: &http.Transport{}, Timeout: WaitLimit}
	t.Cleanup(client.CloseIdleConnections)
	e := &SNSEmulator{Region: region, Port: ports[0], t: t, s: s, client: client, past: make(map[string][]SNSMessage)}
	e.takeMessages(true)
	return e
}

func prepareSNS(s *server, port int, region string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "internal", "harness", "sns")
	// install.sh puts a Node.js there where the system's is too old.
	node := filepath.Join(dir, "runtime", "node")
	if _, err := os.Stat(node); err != nil {
		if node, err = exec.LookPath("node"); err != nil {
			return fmt.Errorf("%w (Node.js 20 or later)", err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		return fmt.Errorf("%w (run internal/harness/install.sh)", err)
	}
	s.args = []string{node, filepath.Join(dir, "server.mjs"), strconv.Itoa(port), region}
	s.env = baseEnv(s.dir)
	s.ready = func(limit time.Duration) error {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: limit}
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/health", port))
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("health: %s", resp.Status)
		}
		return nil
	}
	return nil
}

// moduleRoot finds the checkout from the test's directory, which lies in it.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// Endpoint is the emulator's URL, for sns_host or an SDK's BaseEndpoint.
func (e *SNSEmulator) Endpoint() string { return fmt.Sprintf("http://127.0.0.1:%d", e.Port) }

// AccountID is the account of its topics.
func (e *SNSEmulator) AccountID() string { return SNSAccountID }

// CreateTopic makes a topic with a queue that collects what is published, and
// returns its ARN. A name that ends in .fifo makes a FIFO topic.
func (e *SNSEmulator) CreateTopic(name string) string {
	e.t.Helper()
	e.createTopic(name)
	e.topics = append(e.topics, name)
	return e.TopicARN(name)
}

// TopicARN is the ARN of a topic with that name, existing or not.
func (e *SNSEmulator) TopicARN(name string) string {
	return "arn:aws:sns:" + e.Region + ":" + SNSAccountID + ":" + name
}

func (e *SNSEmulator) createTopic(name string) {
	e.t.Helper()
	topic := url.Values{"Action": {"CreateTopic"}, "Name": {name}}
	queue := map[string]any{"QueueName": name}
	if strings.HasSuffix(name, ".fifo") {
		topic.Set("Attributes.entry.1.key", "FifoTopic")
		topic.Set("Attributes.entry.1.value", "true")
		queue["Attributes"] = map[string]string{"FifoQueue": "true"}
	}
	e.sns(topic)
	e.sqs("CreateQueue", queue)
	e.sns(url.Values{
		"Action":   {"Subscribe"},
		"TopicArn": {e.TopicARN(name)},
		"Protocol": {"sqs"},
		"Endpoint": {"arn:aws:sqs:" + e.Region + ":" + SNSAccountID + ":" + name},
	})
}

// Stop ends the emulator; connections to it are refused. What was published
// stays visible in Messages.
func (e *SNSEmulator) Stop() {
	e.t.Helper()
	e.takeMessages(false)
	for _, topic := range e.topics {
		e.past[topic] = e.Messages(topic)
	}
	if err := e.s.stop(); err != nil {
		e.t.Fatalf("stop sns: %v\n%s", err, e.s.tail())
	}
	e.client.CloseIdleConnections()
}

// Start starts a stopped emulator on the same port with the same topics.
func (e *SNSEmulator) Start() {
	e.t.Helper()
	if err := e.s.start(); err != nil {
		e.t.Fatalf("start sns: %v\n%s", err, e.s.tail())
	}
	for _, topic := range e.topics {
		e.createTopic(topic)
	}
	e.takeMessages(true)
}

// takeMessages says whether messages are taken or answered with 503. What is
// published between the beginning of Stop and the end of Start, while there is
// no queue that would keep it, must not look as if it had been.
func (e *SNSEmulator) takeMessages(yes bool) {
	e.t.Helper()
	path, state := "/_harness/close", false
	if yes {
		path = "/_harness/open"
	}
	if e.get(path, &state); state != yes {
		e.t.Fatalf("sns: %s did not help", path)
	}
}

// Messages returns what was published to a topic so far, in order.
func (e *SNSEmulator) Messages(topic string) []SNSMessage {
	e.t.Helper()
	var queue struct {
		Messages struct {
			Ready []struct {
				Body                   string
				MessageGroupID         string `json:"messageGroupId"`
				MessageDeduplicationID string `json:"messageDeduplicationId"`
			}
		}
	}
	e.get("/_fauxqs/queues/"+url.PathEscape(topic), &queue)
	all := append([]SNSMessage(nil), e.past[topic]...)
	for _, m := range queue.Messages.Ready {
		var n struct {
			TopicArn, Message, Subject string
			MessageAttributes          map[string]SNSAttribute
		}
		if err := json.Unmarshal([]byte(m.Body), &n); err != nil {
			e.t.Fatalf("sns: a notification on %s: %v", topic, err)
		}
		all = append(all, SNSMessage{
			TopicARN: n.TopicArn, Message: n.Message, Subject: n.Subject, Attributes: n.MessageAttributes,
			GroupID: m.MessageGroupID, DeduplicationID: m.MessageDeduplicationID,
		})
	}
	return all
}

// WaitMessages returns a topic's messages as soon as there are n or more.
func (e *SNSEmulator) WaitMessages(topic string, n int) []SNSMessage {
	e.t.Helper()
	var got []SNSMessage
	await(e.t, fmt.Sprintf("%d messages on %s", n, topic), func() bool {
		got = e.Messages(topic)
		return len(got) >= n
	})
	return got
}

// Calls returns the requests with that action (Publish, PublishBatch, ...)
// since the emulator was last started.
func (e *SNSEmulator) Calls(action string) []SNSCall {
	e.t.Helper()
	var all, matching []SNSCall
	e.get("/_harness/calls", &all)
	for _, c := range all {
		if c.Form["Action"] == action {
			matching = append(matching, c)
		}
	}
	return matching
}

func (e *SNSEmulator) get(path string, v any) {
	e.t.Helper()
	resp, err := e.client.Get(e.Endpoint() + path)
	if err != nil {
		e.t.Fatalf("sns: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		e.t.Fatalf("sns: GET %s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		e.t.Fatalf("sns: GET %s: %v", path, err)
	}
}

// sns makes a request in the query protocol, unsigned but for the region.
func (e *SNSEmulator) sns(form url.Values) {
	e.t.Helper()
	e.post("application/x-www-form-urlencoded", "", form.Encode())
}

func (e *SNSEmulator) sqs(action string, parameters any) {
	e.t.Helper()
	body, err := json.Marshal(parameters)
	if err != nil {
		e.t.Fatal(err)
	}
	e.post("application/x-amz-json-1.0", "AmazonSQS."+action, string(body))
}

func (e *SNSEmulator) post(contentType, target, body string) {
	e.t.Helper()
	req, err := http.NewRequest(http.MethodPost, e.Endpoint()+"/", strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if target != "" {
		req.Header.Set("X-Amz-Target", target)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		e.t.Fatalf("sns: %v", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatalf("sns: %v", err)
	}
	var fault struct {
		Message string `xml:"Error>Message"`
	}
	if resp.StatusCode != http.StatusOK {
		if xml.Unmarshal(answer, &fault) != nil || fault.Message == "" {
			fault.Message = string(answer)
		}
		e.t.Fatalf("sns: %s%s: %s: %s", target, body, resp.Status, fault.Message)
	}
}
