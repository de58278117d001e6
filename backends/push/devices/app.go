package devices

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	client "eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/send/apns"
	"eventpusher/backends/push/send/fcm"
	"eventpusher/backends/push/send/webpush"
	"eventpusher/config"
)

// App is an application with its access to the providers.
type App struct {
	Name    string
	senders map[notify.Kind]notify.Sender
	topics  []string
	sandbox bool
	// checkEndpoint says whether a subscription may be registered.
	checkEndpoint func(context.Context, notify.Target) error
}

// sendTimeout is how long a provider may take for an answer. Concurrency is bounded by the
// lanes and by the routes.
const sendTimeout = 10 * time.Second

// InvalidAppsError says what is wrong with the applications of a configuration, each by
// its key.
type InvalidAppsError struct{ Problems []config.Problem }

// Error implements error, in one line.
func (e *InvalidAppsError) Error() string {
	texts := make([]string, len(e.Problems))
	for i := range e.Problems {
		texts[i] = e.Problems[i].Path + ": " + e.Problems[i].Text
	}
	return strings.Join(texts, "; ")
}

// NewApps returns the applications of the configuration. It connects to nothing. The
// error is an *InvalidAppsError.
func NewApps(list []config.PushApp) ([]App, error) {
	var problems []config.Problem
	apps := make([]App, 0, len(list))
	keys := make(map[[2]string]*apns.Key)
	for i := range list {
		a, wrong := newApp(&list[i], fmt.Sprintf("push.app[%d]", i+1), keys)
		if len(wrong) > 0 {
			problems = append(problems, wrong...)
			continue
		}
		apps = append(apps, a)
	}
	if len(problems) > 0 {
		for i := range apps {
			_ = apps[i].close() // nothing is open yet
		}
		return nil, &InvalidAppsError{problems}
	}
	return apps, nil
}

// newApp returns the application that the configuration has under path, or what is wrong
// with it.
func newApp(c *config.PushApp, path string, keys map[[2]string]*apns.Key) (a App, wrong []config.Problem) {
	a = App{Name: c.Name, senders: make(map[notify.Kind]notify.Sender)}
	add := func(kind notify.Kind, err error) {
		if err == nil {
			return
		}
		key := path + "." + string(kind)
		if o := (*client.OptionError)(nil); errors.As(err, &o) {
			key += "." + o.Option
		}
		wrong = append(wrong, config.Problem{Severity: config.Error, Path: key, Text: err.Error()})
	}
	if c.APNs != nil {
		add(notify.APNs, a.addAPNs(c.APNs, keys))
	}
	if c.FCM != nil {
		add(notify.FCM, a.addFCM(c.FCM))
	}
	if c.WebPush != nil {
		add(notify.WebPush, a.addWebPush(c.WebPush))
	}
	if len(wrong) > 0 {
		_ = a.close() // nothing is open yet
	}
	return a, wrong
}

// authorities returns options that trust those of the file, nil for the system's.
func authorities(file string) *config.TLS {
	if file == "" {
		return nil
	}
	return &config.TLS{CACertFile: file}
}

// addAPNs adds the sender to Apple. Applications of one account share its key, since
// Apple counts the tokens made with it together.
func (a *App) addAPNs(c *config.PushAPNs, keys map[[2]string]*apns.Key) error {
	id := [2]string{c.KeyID, c.TeamID}
	key := keys[id]
	if key == nil {
		var err error
		if key, err = apns.NewKey(c.KeyID, c.TeamID, c.Key); err != nil {
			return err
		}
		keys[id] = key
	}
	s, err := apns.New(apns.Options{
		Key: key, Sandbox: c.Sandbox, Topics: c.Topics, MutableContent: c.MutableContent, Timeout: sendTimeout,
		Sound: c.Sound, Category: c.Category, Interruption: c.Interruption, LocKey: c.LocKey,
		URL: c.URL, TLS: authorities(c.CACertFile),
	})
	if err != nil {
		return err
	}
	a.senders[notify.APNs], a.topics, a.sandbox = s, c.Topics, c.Sandbox
	return nil
}

func (a *App) addFCM(c *config.PushFCM) error {
	s, err := fcm.New(fcm.Options{
		ServiceAccount: c.Credentials, DataOnly: c.DataOnly, Timeout: sendTimeout,
		ChannelID: c.ChannelID, ClickAction: c.ClickAction, Sound: c.Sound, LocKey: c.LocKey,
		URL: c.URL, TLS: authorities(c.CACertFile),
	})
	if err != nil {
		return err
	}
	a.senders[notify.FCM] = s
	return nil
}

func (a *App) addWebPush(c *config.PushWebPush) error {
	var hosts []string
	var networks []netip.Prefix
	for _, allowed := range c.Allow {
		if network, err := netip.ParsePrefix(allowed); err == nil {
			networks = append(networks, network)
		} else {
			hosts = append(hosts, allowed)
		}
	}
	guard, err := webpush.NewGuard(hosts, networks)
	if err != nil {
		return err
	}
	o := webpush.Options{Guard: guard, Timeout: sendTimeout, CACertFile: c.CACertFile}
	if c.VAPIDKey != "" {
		if o.VAPID, err = webpush.NewVAPID(config.Secret(strings.TrimSpace(c.VAPIDKey.Reveal())), c.Subject); err != nil {
			return err
		}
	}
	s, err := webpush.New(o)
	if err != nil {
		return err
	}
	a.senders[notify.WebPush], a.checkEndpoint = s, s.Check
	return nil
}

// hasTopic reports whether the application may send to a topic of APNs.
func (a *App) hasTopic(topic string) bool { return slices.Contains(a.topics, topic) }

// close releases the connections of the senders.
func (a *App) close() error {
	var errs []error
	for _, s := range a.senders {
		if c, ok := s.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
