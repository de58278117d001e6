package natsrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// ErrUnavailable says that no server answers for a stream at the moment.
var ErrUnavailable = errors.New("no server of NATS answers for the stream")

// Store reads and writes one stream. Its methods are safe for concurrent use, and wait for
// the servers until the context ends, for at most RequestTimeout.
type Store struct {
	NC     *nats.Conn
	Stream string
}

// Record is one message of a stream.
type Record struct {
	Subject string
	Seq     uint64
	Header  nats.Header
	Data    []byte
}

// directRequest is the body of a direct get (ADR-31).
type directRequest struct {
	Seq       uint64   `json:"seq,omitempty"`
	Next      string   `json:"next_by_subj,omitempty"`
	Batch     int      `json:"batch,omitempty"`
	MaxBytes  int      `json:"max_bytes,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
}

// Last returns the last record of each subject that matches one of the filters, in the order
// of their sequences. They are as one replica has them at one moment, which may be behind
// its leader. If there are more than 1024, or more than about 4 MB, they are of several
// moments, and a record that is replaced meanwhile may come twice. For more than 1024 the
// stream must keep one record a subject.
func (s *Store) Last(ctx context.Context, filters ...string) (all []Record, err error) {
	all, err = s.all(ctx, directRequest{MultiLast: filters})
	if !errors.Is(err, errTooMany) {
		return all, err
	}
	all = nil
	for _, filter := range filters {
		list, err := s.all(ctx, directRequest{Next: filter, Batch: fewEnough})
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// What a server that has more is asked for at once.
const (
	fewEnough   = 256     // records
	smallEnough = 4 << 20 // bytes, about: a server disconnects whom it owes too much
)

// all returns everything that a direct get finds, in as many turns as it takes.
func (s *Store) all(ctx context.Context, q directRequest) (all []Record, err error) {
	q.MaxBytes = smallEnough
	for q.Seq = 1; ; q.Seq = all[len(all)-1].Seq + 1 {
		list, more, err := s.direct(ctx, &q)
		if err != nil {
			return nil, err
		}
		if all = append(all, list...); !more || len(list) == 0 {
			return all, nil
		}
	}
}

// From returns the records from a sequence on that match the filter (empty: all), in order,
// at most so many and about so many bytes.
func (s *Store) From(ctx context.Context, seq uint64, filter string, records, bytes int) ([]Record, error) {
	list, _, err := s.direct(ctx, &directRequest{Seq: max(seq, 1), Next: filter, Batch: records, MaxBytes: bytes})
	return list, err
}

// errTooMany says that more subjects match than a server returns the last records of.
var errTooMany = errors.New("more than 1024 subjects")

// direct sends a direct get and collects the answers. more says that they are not all.
func (s *Store) direct(ctx context.Context, q *directRequest) (list []Record, more bool, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	inbox := s.NC.NewInbox()
	sub, err := s.NC.SubscribeSync(inbox)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only if the connection is closed
	if err := s.NC.PublishRequest("$JS.API.DIRECT.GET."+s.Stream, inbox, body); err != nil {
		return nil, false, err
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if errors.Is(err, nats.ErrNoResponders) {
			err = ErrUnavailable
		}
		var r Record
		if err == nil {
			switch status := m.Header.Get("Status"); status {
			case "":
				r, err = record(m)
			case "204", "404":
				pending := m.Header.Get("Nats-Num-Pending")
				return list, pending != "" && pending != "0", nil
			case "413":
				err = errTooMany
			default:
				err = fmt.Errorf("the server says %s %s", status, m.Header.Get("Description"))
			}
		}
		if err != nil {
			return nil, false, fmt.Errorf("read %s: %w", s.Stream, err)
		}
		list = append(list, r)
	}
}

// record reads an answer to a direct get.
func record(m *nats.Msg) (r Record, err error) {
	r = Record{Subject: m.Header.Get(js.SubjectHeader), Header: m.Header, Data: m.Data}
	r.Seq, err = strconv.ParseUint(m.Header.Get(js.SequenceHeader), 10, 64)
	return r, err
}

// Newest returns the last record of a subject, as the stream's leader has it; false if there
// is none.
func (s *Store) Newest(ctx context.Context, subject string) (Record, bool, error) {
	return s.get(ctx, map[string]any{"last_by_subj": subject})
}

// At returns the record at a sequence, as the stream's leader has it; false if there is
// none.
func (s *Store) At(ctx context.Context, seq uint64) (Record, bool, error) {
	return s.get(ctx, map[string]any{"seq": seq})
}

func (s *Store) get(ctx context.Context, q map[string]any) (r Record, ok bool, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return r, false, err
	}
	var answer struct {
		Error   *js.APIError
		Message struct {
			Subject string
			Seq     uint64
			Hdrs    []byte
			Data    []byte
		}
	}
	if err = s.request(ctx, &nats.Msg{Subject: "$JS.API.STREAM.MSG.GET." + s.Stream, Data: body}, &answer); err != nil {
		return r, false, fmt.Errorf("read %s: %w", s.Stream, err)
	}
	if answer.Error != nil {
		if answer.Error.ErrorCode == js.JSErrCodeMessageNotFound {
			return r, false, nil
		}
		return r, false, fmt.Errorf("read %s: %w", s.Stream, answer.Error)
	}
	m := &answer.Message
	r = Record{Subject: m.Subject, Seq: m.Seq, Data: m.Data}
	if len(m.Hdrs) > 0 {
		r.Header, err = nats.DecodeHeadersMsg(m.Hdrs)
	}
	return r, true, err
}

// request sends a request and decodes its JSON answer.
func (s *Store) request(ctx context.Context, m *nats.Msg, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	reply, err := s.NC.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return ErrUnavailable
	case errors.Is(err, nats.ErrReconnectBufExceeded): // nothing is buffered
		return nats.ErrDisconnected
	case err != nil:
		return err
	}
	return json.Unmarshal(reply.Data, answer)
}

// Expectation is a condition for a write.
type Expectation func(h nats.Header)

// AfterSubject expects that the last record of the subject that is written has this
// sequence; 0: that there is none.
func AfterSubject(seq uint64) Expectation {
	return func(h nats.Header) { h.Set(js.ExpectedLastSubjSeqHeader, strconv.FormatUint(seq, 10)) }
}

// Fenced expects that the last record of another subject has this sequence.
func Fenced(subject string, seq uint64) Expectation {
	return func(h nats.Header) {
		h.Set(js.ExpectedLastSubjSeqSubjHeader, subject)
		h.Set(js.ExpectedLastSubjSeqHeader, strconv.FormatUint(seq, 10))
	}
}

// AfterStream expects that the last record of the stream has this sequence.
func AfterStream(seq uint64) Expectation {
	return func(h nats.Header) { h.Set(js.ExpectedLastSeqHeader, strconv.FormatUint(seq, 10)) }
}

// Expires lets the record vanish after a time by the server's clock, in whole seconds. The
// stream must allow that.
func Expires(after time.Duration) Expectation {
	return func(h nats.Header) { h.Set(js.MsgTTLHeader, after.String()) }
}

// NewMsg returns a message with expectations.
func NewMsg(subject string, data []byte, expect ...Expectation) *nats.Msg {
	m := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{}}
	for _, e := range expect {
		e(m.Header)
	}
	return m
}

// ack is the answer to a write.
type ack struct {
	Error *js.APIError
	Seq   uint64
}

// Write stores a record and returns its sequence. Only success is certain: if it fails the
// record may be stored now, or later.
func (s *Store) Write(ctx context.Context, m *nats.Msg) (seq uint64, err error) {
	var a ack
	err = s.request(ctx, m, &a)
	if err == nil && a.Error != nil {
		err = a.Error
	}
	if err == nil && a.Seq == 0 {
		err = errors.New("the server does not acknowledge")
	}
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", s.Stream, err)
	}
	return a.Seq, nil
}

// MaxBatch is how many records WriteAll takes.
const MaxBatch = 900

// WriteAll stores records together or not at all (ADR-50) and returns the sequence of the
// last. A failure is as uncertain as Write's.
func (s *Store) WriteAll(ctx context.Context, list []*nats.Msg) (seq uint64, err error) {
	if len(list) == 1 {
		return s.Write(ctx, list[0])
	}
	id := nuid.Next()
	for n, m := range list {
		m.Header.Set("Nats-Batch-Id", id)
		m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(n+1))
	}
	last := list[len(list)-1]
	last.Header.Set("Nats-Batch-Commit", "1")
	for _, m := range list[:len(list)-1] {
		if err := s.NC.PublishMsg(m); err != nil {
			return 0, fmt.Errorf("write %s: %w", s.Stream, err)
		}
	}
	return s.Write(ctx, last)
}
