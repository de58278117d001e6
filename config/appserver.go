package config

import (
	"fmt"
	"net/netip"
	"time"
)

// AppServer is [push]: being the app server of XEP-0357 for applications of the
// operator's own.
type AppServer struct {
	MaxDevices int           // of one user; default 16
	Burst      int           // notifications that a device gets at once; default 3
	Interval   time.Duration // until it may get one more; default 20 s
	Apps       []PushApp
}

// PushApp is one [[push.app]].
type PushApp struct {
	Name    string
	APNs    *PushAPNs
	FCM     *PushFCM
	WebPush *PushWebPush
}

// PushAPNs is [push.app.apns].
type PushAPNs struct {
	Key            Secret // the .p8 file of the account
	KeyID, TeamID  string
	Topics         []string // bundle ids
	Sandbox        bool
	MutableContent bool
	Sound          string // default "default"
	Category       string
	Interruption   string // passive, active, time-sensitive or critical; empty: Apple's
	LocKey         string // of the application's text for a notification without a text
	URL            string // instead of Apple's
	CACertFile     string
}

// PushFCM is [push.app.fcm].
type PushFCM struct {
	Credentials Secret // the JSON file of the service account
	DataOnly    bool
	ChannelID   string // Android's
	ClickAction string
	Sound       string // default "default"
	LocKey      string // of the application's text for a notification without a text
	URL         string // instead of Google's
	CACertFile  string
}

// PushWebPush is [push.app.webpush].
type PushWebPush struct {
	VAPIDKey   Secret   // 32 bytes in base64url; without it UnifiedPush only
	Subject    string   // mailto: or https:
	Allow      []string // hosts and networks that are not on the public Internet
	CACertFile string
}

// Format writes the fields as %+v does, whatever the verb.
func (p PushAPNs) Format(s fmt.State, _ rune) {
	type plain PushAPNs
	_, _ = fmt.Fprintf(s, "%+v", plain(p))
}

// Format writes the fields as %+v does, whatever the verb.
func (p PushFCM) Format(s fmt.State, _ rune) {
	type plain PushFCM
	_, _ = fmt.Fprintf(s, "%+v", plain(p))
}

// Format writes the fields as %+v does, whatever the verb.
func (p PushWebPush) Format(s fmt.State, _ rune) {
	type plain PushWebPush
	_, _ = fmt.Fprintf(s, "%+v", plain(p))
}

// CACertFiles returns the cacertfile of each service; it is empty if a service has none.
func (a *AppServer) CACertFiles() (names []string) {
	for _, app := range a.Apps {
		if app.APNs != nil {
			names = append(names, app.APNs.CACertFile)
		}
		if app.FCM != nil {
			names = append(names, app.FCM.CACertFile)
		}
		if app.WebPush != nil {
			names = append(names, app.WebPush.CACertFile)
		}
	}
	return names
}

func (a *AppServer) fields() []field {
	return []field{
		integer("max_devices", &a.MaxDevices, int64(16), 1, 10_000),
		integer("burst", &a.Burst, int64(3), 1, 1000),
		duration("interval", &a.Interval, "20s", time.Millisecond),
		list("app", &a.Apps, (*PushApp).fields),
	}
}

func (a *PushApp) fields() []field {
	return []field{
		text("name", &a.Name, nil, filled),
		section("apns", &a.APNs, func(p *PushAPNs) []field {
			return join(secret("key", &p.Key, nil, filled), []field{
				text("key_id", &p.KeyID, nil, filled),
				text("team_id", &p.TeamID, nil, filled),
				texts("topics", &p.Topics, nil, filled),
				boolean("sandbox", &p.Sandbox, false),
				boolean("mutable_content", &p.MutableContent, false),
				text("sound", &p.Sound, "default", nonEmpty),
				text("category", &p.Category, nil, nonEmpty),
				choice("interruption_level", &p.Interruption, nil, "passive", "active", "time-sensitive", "critical"),
				text("loc_key", &p.LocKey, nil, nonEmpty),
				text("url", &p.URL, nil, nonEmpty),
				text("cacertfile", &p.CACertFile, nil, nonEmpty),
			})
		}),
		section("fcm", &a.FCM, func(p *PushFCM) []field {
			return join(secret("credentials", &p.Credentials, nil, filled), []field{
				boolean("data_only", &p.DataOnly, false),
				text("channel_id", &p.ChannelID, nil, nonEmpty),
				text("click_action", &p.ClickAction, nil, nonEmpty),
				text("sound", &p.Sound, "default", nonEmpty),
				text("loc_key", &p.LocKey, nil, nonEmpty),
				text("url", &p.URL, nil, nonEmpty),
				text("cacertfile", &p.CACertFile, nil, nonEmpty),
			})
		}),
		section("webpush", &a.WebPush, func(p *PushWebPush) []field {
			return join(secret("vapid_key", &p.VAPIDKey, nil, filled), []field{
				text("subject", &p.Subject, nil, filled),
				texts("allow", &p.Allow, []any{}, isHostOrNetwork),
				text("cacertfile", &p.CACertFile, nil, nonEmpty),
			})
		}),
	}
}

// isHostOrNetwork complains of what is neither a host nor a network such as
// 10.1.0.0/16.
func isHostOrNetwork(s string) *complaint {
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil
	}
	return isHostname(s)
}

// appServer checks [push]. Keys are checked where the senders are built.
func (l *loader) appServer(c *Config) {
	at := keyPath{"push", "app"}
	if len(c.AppServer.Apps) > 0 && c.Pusher.Push == nil {
		l.errorf(at.String(), "needs the push backend, through which its notifications go", "add ["+pusherPath.with("push").String()+"]; it may be empty")
	}
	seen := make(map[string]bool)
	for i := range c.AppServer.Apps {
		a, here := &c.AppServer.Apps[i], at.with(position(i))
		l.require(here.with("name").String(), "give the application a name, by which devices register", a.Name == "")
		if a.Name != "" && seen[a.Name] {
			l.errorf(here.with("name").String(), "another application is called "+quote(a.Name), "give each application its own name")
		}
		seen[a.Name] = true
		if a.APNs == nil && a.FCM == nil && a.WebPush == nil {
			l.errorf(here.String(), "has no provider", "add [push.app.apns], [push.app.fcm] or [push.app.webpush] below it")
		}
		l.pushProviders(a, here)
	}
}

func (l *loader) pushProviders(a *PushApp, here keyPath) {
	if p := a.APNs; p != nil {
		at := here.with("apns")
		l.require(at.with("key").String(), "set key_file to the .p8 file of the account", p.Key == "")
		l.require(at.with("key_id").String(), "write the 10 characters of the key's page", p.KeyID == "")
		l.require(at.with("team_id").String(), "write the 10 characters of the account's membership page", p.TeamID == "")
		l.require(at.with("topics").String(), `write the bundle ids: topics = ["org.example.chat"]`, len(p.Topics) == 0)
		p.CACertFile = l.file(p.CACertFile, at.with("cacertfile").String(), true)
	}
	if p := a.FCM; p != nil {
		at := here.with("fcm")
		l.require(at.with("credentials").String(), "set credentials_file to the JSON file of the service account", p.Credentials == "")
		p.CACertFile = l.file(p.CACertFile, at.with("cacertfile").String(), true)
	}
	if p := a.WebPush; p != nil {
		at := here.with("webpush")
		l.require(at.with("subject").String(), `say how push services reach you: subject = "mailto:you@example.org"`, p.VAPIDKey != "" && p.Subject == "")
		p.CACertFile = l.file(p.CACertFile, at.with("cacertfile").String(), true)
	}
}
