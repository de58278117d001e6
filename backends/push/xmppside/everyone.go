package xmppside

import (
	"context"
	"encoding/json"
	"time"

	"eventpusher/backends/push"
	"eventpusher/internal/jid"
)

// explainTimeout is how long an explanation waits for the other instances.
const explainTimeout = 2 * time.Second

// explainQuestion is put to all instances: each has decided about its own part of the
// messages, and one alone knows the feeds.
type explainQuestion struct {
	Explain jid.JID `json:"explain"` // a bare JID
}

// explainAnswer is what one of them knows, without what is registered, which all share.
type explainAnswer struct {
	Instance    string           `json:"instance"`
	Explanation push.Explanation `json:"explanation"`
}

// feeds names those that report on the user's host, as far as this instance has heard.
func (u *Users) feeds(user jid.JID) map[string]string {
	feeds := make(map[string]string)
	for _, h := range u.link.Status().Hosts {
		if h.Host == user.Domain() {
			for class, dialect := range h.Authority {
				feeds[class.String()] = dialect
			}
		}
	}
	return feeds
}

// Explain says what is known about push for a user, given by his bare JID: what the backend says, which feeds report on the
// user's host, and what the other instances have decided.
func (u *Users) Explain(ctx context.Context, user jid.JID) (push.Explanation, error) {
	e, err := u.o.Push.Explain(ctx, user)
	if err != nil {
		return e, err
	}
	if e.Feeds = u.feeds(user); u.o.Relay == nil {
		return e, nil
	}
	question, err := json.Marshal(explainQuestion{Explain: user})
	if err != nil {
		return e, err
	}
	asking, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	answers, err := u.o.Relay.AskAll(asking, question)
	if err != nil {
		u.o.Log.Warn("push: the other instances cannot be asked what they have decided", "err", err)
	}
	e.Silent = u.o.Instances() - 1
	for _, b := range answers {
		var a explainAnswer
		if json.Unmarshal(b, &a) != nil || a.Instance == "" || a.Instance == u.instance {
			continue
		}
		e.Silent--
		e.Merge(&a.Explanation)
	}
	e.Silent = max(e.Silent, 0)
	return e, nil
}

// answerAll answers what every instance is asked; an empty answer is that of one that
// cannot.
func (u *Users) answerAll(_ context.Context, question []byte) []byte {
	var q explainQuestion
	if json.Unmarshal(question, &q) != nil || q.Explain == "" {
		return nil
	}
	b, _ := json.Marshal(explainAnswer{u.instance, push.Explanation{
		User: q.Explain, Decisions: u.o.Push.Decisions(q.Explain), Feeds: u.feeds(q.Explain),
	}}) // texts and times: it cannot fail
	return b
}
