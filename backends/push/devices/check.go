package devices

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/send/apns"
	"eventpusher/backends/push/send/webpush"
	"eventpusher/config"
)

const (
	// maxToken bounds registration tokens; Google's have some 200 characters and no
	// documented limit.
	maxToken = 4096
	// lookupTimeout bounds the question to the DNS where an endpoint leads.
	lookupTimeout = 5 * time.Second
)

// check returns what the request asks to keep.
func (r *Registry) check(ctx context.Context, q *Request) (*App, notify.Target, error) {
	kind := notify.Kind(q.Kind)
	app, err := r.choose(kind, q.App)
	if err != nil {
		return nil, notify.Target{}, err
	}
	t := notify.Target{Kind: kind}
	if kind == notify.WebPush {
		if q.Token != "" {
			return nil, t, invalid("token", "belongs to apns and fcm; a Web Push subscription has endpoint, p256dh and auth")
		}
		t.Address, t.P256DH, t.Auth = config.Secret(q.Endpoint), q.P256DH, config.Secret(q.Auth)
		return app, t, app.checkSubscription(ctx, t)
	}
	if q.Endpoint != "" || q.P256DH != "" || q.Auth != "" {
		return nil, t, invalid("endpoint", "belongs to webpush, with p256dh and auth; a device of %s has a token", kind)
	}
	t.Address = config.Secret(q.Token)
	switch {
	case q.Token == "":
		return nil, t, invalid("token", "is missing")
	case len(q.Token) > maxToken || strings.ContainsFunc(q.Token, func(c rune) bool { return c <= ' ' || c > '~' }):
		return nil, t, invalid("token", "is not one of %s", kind)
	case kind == notify.APNs:
		if !apns.IsToken(q.Token) {
			return nil, t, invalid("token", "is not one of apns, which are hexadecimal")
		}
		t.Address = config.Secret(strings.ToLower(q.Token)) // one device, however it is written
		if q.Topic != "" && !app.hasTopic(q.Topic) {
			return nil, t, invalid("topic", "is not among those of application %q", app.Name)
		}
		t.Topic, t.Sandbox = q.Topic, app.sandbox
	case q.Topic != "":
		return nil, t, invalid("topic", "belongs to apns")
	}
	return app, t, nil
}

// choose returns the application of that name, or the only one that has the kind.
func (r *Registry) choose(kind notify.Kind, name string) (*App, error) {
	var having []*App
	known := false
	for i := range r.apps {
		app := &r.apps[i]
		known = known || app.Name == name
		if app.senders[kind] != nil && (name == "" || app.Name == name) {
			having = append(having, app)
		}
	}
	switch {
	case len(having) == 1:
		return having[0], nil
	case len(having) > 1:
		return nil, invalid("app", "is missing; more than one application has devices of this kind")
	case name != "" && !known:
		return nil, invalid("app", "names no application that is configured")
	}
	return nil, r.noSuch(kind, name)
}

// noSuch says of a kind that it is not configured, and what is: for an application, or
// with an empty name for any.
func (r *Registry) noSuch(kind notify.Kind, name string) error {
	var configured []string
	for _, k := range kindOrder {
		if slices.ContainsFunc(r.apps, func(a App) bool { return a.senders[k] != nil && (name == "" || a.Name == name) }) {
			configured = append(configured, string(k))
		}
	}
	choice := strings.Join(configured, ", ")
	switch {
	case kind == "":
		return invalid("kind", "is missing; configured: %s", choice)
	case !slices.Contains(kindOrder[:], kind):
		return invalid("kind", "is none of apns, fcm, webpush; configured: %s", choice)
	case name != "":
		return invalid("kind", "%s is not configured for application %q; configured: %s", kind, name, choice)
	}
	return invalid("kind", "%s is not configured; configured: %s", kind, choice)
}

// checkSubscription applies the rules of package webpush. Why an endpoint is not
// allowed would tell about our network.
func (a *App) checkSubscription(ctx context.Context, t notify.Target) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	err := a.checkEndpoint(ctx, t)
	switch {
	case errors.Is(err, webpush.ErrKeys):
		return invalid("p256dh", "or auth is not the key of a Web Push subscription, in base64url")
	case errors.Is(err, webpush.ErrEndpoint):
		return invalid("endpoint", "is not allowed: it must be https, on the public Internet")
	}
	return err
}
