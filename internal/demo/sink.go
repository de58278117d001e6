package demo

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
)

// sink stands in for the receivers of events on one loopback port: a webhook
// and the part of Amazon SNS's query API that publishing needs.
// It turns each delivered event into one readable line.
type sink struct {
	listener net.Listener
	server   *http.Server
	lines    chan<- string
}

func newSink(lines chan<- string) (*sink, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo: no port for the receiver: %w", err)
	}
	s := &sink{listener: listener, lines: lines}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+webhookPath, s.webhook)
	mux.HandleFunc("POST /{$}", s.sns)
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return s, nil
}

func (s *sink) serve() error {
	if err := s.server.Serve(s.listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func (s *sink) close() error {
	err := s.server.Close()
	// The server knows the listener only once it serves.
	s.listener.Close()
	return err
}

func (s *sink) url() string { return "http://" + s.listener.Addr().String() }

// webhook takes MongooseIM's form: author, server, receiver, message, and
// whatever the filters added.
func (s *sink) webhook(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "not a form", http.StatusBadRequest)
		return
	}
	f := r.PostForm
	s.print("webhook", fmt.Sprintf("%s@%s -> %s: %s", f.Get("author"), f.Get("server"), f.Get("receiver"), f.Get("message")),
		extras(f, "author", "server", "receiver", "message"))
}

// sns answers Publish and PublishBatch, the calls that the sns backend makes.
func (s *sink) sns(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "not a form", http.StatusBadRequest)
		return
	}
	type entry struct {
		ID        string `xml:"Id,omitempty"`
		MessageID string `xml:"MessageId"`
	}
	// A published message is answered alone, a batch with the entries' ids.
	var answer struct {
		XMLName xml.Name
		One     *entry  `xml:"PublishResult"`
		Batch   []entry `xml:"PublishBatchResult>Successful>member"`
	}
	f := r.PostForm
	arn := f.Get("TopicArn")
	switch action := f.Get("Action"); action {
	case "Publish":
		s.topic(arn, f.Get("Message"))
		answer.One = &entry{MessageID: "demo"}
	case "PublishBatch":
		for i := 1; f.Has(batchKey(i, "Id")); i++ {
			s.topic(arn, f.Get(batchKey(i, "Message")))
			answer.Batch = append(answer.Batch, entry{ID: f.Get(batchKey(i, "Id")), MessageID: "demo"})
		}
	default:
		http.Error(w, "the demo does not know the action "+strconv.Quote(action), http.StatusBadRequest)
		return
	}
	answer.XMLName = xml.Name{Space: "http://sns.amazonaws.com/doc/2010-03-31/", Local: f.Get("Action") + "Response"}
	w.Header().Set("Content-Type", "text/xml")
	// If this fails the client has gone; it will ask again.
	_ = xml.NewEncoder(w).Encode(answer)
}

func batchKey(i int, name string) string {
	return fmt.Sprintf("PublishBatchRequestEntries.member.%d.%s", i, name)
}

// topic prints one SNS message.
func (s *sink) topic(arn, message string) {
	name := arn[strings.LastIndexByte(arn, ':')+1:]
	var m map[string]any
	if err := json.Unmarshal([]byte(message), &m); err != nil {
		s.print(name, message, "")
		return
	}
	fields := url.Values{}
	for k, v := range m {
		fields.Set(k, fmt.Sprint(v))
	}
	if user, ok := m["user_id"]; ok {
		state := "is offline"
		if m["present"] == true {
			state = "is online"
		}
		s.print(name, fmt.Sprintf("%v %s", user, state), extras(fields, "user_id", "present"))
		return
	}
	s.print(name, fmt.Sprintf("%v -> %v: %v", m["from_user_id"], m["to_user_id"], m["message"]),
		extras(fields, "from_user_id", "to_user_id", "message"))
}

// extras lists what filters added, in ascending order.
func extras(fields url.Values, known ...string) string {
	for _, k := range known {
		fields.Del(k)
	}
	keys := make([]string, 0, len(fields))
	for k := range fields {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for i, k := range keys {
		keys[i] = k + "=" + fields.Get(k)
	}
	return strings.Join(keys, " ")
}

func (s *sink) print(where, what, extra string) {
	s.lines <- strings.TrimRight(fmt.Sprintf("%s  %-8s  %-66s  %s", time.Now().Format("15:04:05.000"), where, what, extra), " ")
}
