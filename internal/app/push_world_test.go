package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/xmppserver"
)

// worldDir is the environment variable that makes the test's binary the surroundings
// of the program: the XMPP server that it attaches to, and a sink that takes all
// notifications. The benchmarks run them apart, so that what they cost is not counted
// as the program's.
const worldDir = "EVENTPUSHER_TEST_WORLD"

// worldReady is where the surroundings are.
type worldReady struct{ Server, Sink, CAFile string }

// worldTask is what they are to do: to publish with these payloads, as a server does at
// an app server, or without any to tell by the event-feed of messages to users that are
// offline.
type worldTask struct {
	Count    int
	Payloads []string
	Users    int
}

// worldDone is how long it took until all was accepted, and until all was delivered, and
// what the surroundings have cost themselves.
type worldDone struct {
	Accepted, Delivered, Cost time.Duration
	Failed                    string
}

// runWorld reads tasks and answers them until its standard input ends.
func runWorld(dir string) error {
	server, err := xmppserver.New(xmppserver.Options{Component: feedComponent, Secret: "secret", Hosts: []string{feedHost}})
	if err != nil {
		return err
	}
	defer server.Close()
	sink, end, err := pushtest.RunSink(dir)
	if err != nil {
		return err
	}
	defer end()
	answers, tasks := json.NewEncoder(os.Stdout), json.NewDecoder(os.Stdin)
	if err := answers.Encode(worldReady{server.Addr(), sink.URL, sink.CAFile}); err != nil {
		return err
	}
	var task worldTask
	if err := tasks.Decode(&task); err != nil {
		return err
	}
	ctx := context.Background()
	session, err := server.Accept(ctx)
	if err != nil {
		return err
	}
	f := &feedModule{session: session}
	if len(task.Payloads) == 0 {
		if err := f.attach(ctx); err != nil {
			return err
		}
	}
	for {
		before, began, cost := sink.Taken(), time.Now(), used()
		var done worldDone
		if len(task.Payloads) > 0 {
			err = publishAll(ctx, session, &task)
		} else {
			err = f.tellAll(ctx, &task)
		}
		done.Accepted = time.Since(began)
		for err == nil && sink.Taken() < before+task.Count {
			time.Sleep(time.Millisecond)
			if time.Since(began) > done.Accepted+time.Minute {
				err = fmt.Errorf("%d of %d notifications have arrived", sink.Taken()-before, task.Count)
			}
		}
		done.Delivered, done.Cost = time.Since(began), used()-cost
		if err != nil {
			done.Failed = err.Error()
		}
		if err := answers.Encode(done); err != nil {
			return err
		}
		task.Count = 0
		switch err := tasks.Decode(&task); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// publishAll publishes as a server does, with as many requests under way as an
// ordinary server has at a busy hour, and waits for the answers.
func publishAll(ctx context.Context, session *xmppserver.Session, task *worldTask) error {
	const window = 512
	places, sent := make(chan struct{}, window), make(chan error, 1)
	go func() {
		for i := range task.Count {
			places <- struct{}{}
			if err := session.Send("<iq to='" + feedComponent + "' from='" + feedHost + "' type='set' id='" + strconv.Itoa(i) + "'>" + task.Payloads[i%len(task.Payloads)] + "</iq>"); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range task.Count {
		answer, err := session.Receive(ctx)
		for err == nil && answer.Type == "get" { // the program examines the link
			answer, err = session.Receive(ctx)
		}
		if err != nil {
			return err
		}
		if answer.Type != "result" {
			return fmt.Errorf("answered %s %s", answer.Type, answer.Inner)
		}
		<-places
	}
	return <-sent
}

// feedModule is the server's end of the event-feed.
type feedModule struct {
	session *xmppserver.Session
	seq     int
}

const feedSource = " xmlns='urn:eventpusher:feed:1' source='xmpp1' epoch='67401c55-9f'"

func (f *feedModule) say(element string) error {
	return f.session.Send("<message from='" + feedHost + "' to='" + feedComponent + "'>" + element + "</message>")
}

// event returns the next one.
func (f *feedModule) event(attributes, forwarded string) string {
	f.seq++
	return "<event" + feedSource + " seq='" + strconv.Itoa(f.seq) + "' t='" + strconv.FormatFloat(float64(time.Now().UnixMilli())/1000, 'f', 3, 64) + "' " + attributes + "/>" + forwarded
}

// attach says hello, and what there is to say of sessions: that there are none.
func (f *feedModule) attach(ctx context.Context) error {
	if err := f.say("<hello" + feedSource + " first='1' next='1' hosts='" + feedHost + "'/>"); err != nil {
		return err
	}
	for {
		s, err := f.session.Receive(ctx)
		if err != nil {
			return err
		}
		_, id, asked := strings.Cut(s.Inner, "<snapshot")
		if !asked {
			continue
		}
		_, id, _ = strings.Cut(id, " id=")
		id = strings.Split(id, id[:1])[1]
		return errors.Join(f.say(f.event("kind='snapshot-start' id='"+id+"'", "")), f.say(f.event("kind='snapshot-end' count='0' id='"+id+"'", "")))
	}
}

// tellAll tells of stored messages within the protocol's window and waits until all are
// acknowledged.
func (f *feedModule) tellAll(ctx context.Context, task *worldTask) error {
	const window = 512
	acked, last := f.seq, f.seq+task.Count
	for acked < last {
		for f.seq < min(acked+window, last) {
			user := "user" + strconv.Itoa(f.seq%task.Users) + "@" + feedHost
			element := f.event("kind='message-offline' user='"+user+"'", "")
			if err := f.say(element + "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='alice@" + feedHost + "/desk' to='" + user +
				"' type='chat' id='m" + strconv.Itoa(f.seq) + "'><body>Are you coming to the meeting this afternoon?</body></message></forwarded>"); err != nil {
				return err
			}
		}
		s, err := f.session.Receive(ctx)
		if err != nil {
			return err
		}
		if _, seq, ok := strings.Cut(s.Inner, " seq="); ok && strings.Contains(s.Inner, "<ack") {
			if acked, err = strconv.Atoi(strings.Split(seq, seq[:1])[1]); err != nil {
				return err
			}
		}
	}
	return nil
}
