package mongoosepush

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
	"eventpusher/config"
)

// The names of publish-options. MongooseIM forwards no others; tags among them, by
// which MongoosePush chooses its pool, are not for users to say.
const (
	optionDevice  = "device_id" // the device, by MongoosePush's name for it
	optionService = "service"   // apns or fcm
	optionSilent  = "silent"
)

// request is what is posted. Versions 2 and 3 of the API do not differ in it. The texts that
// are nil were not given.
type request struct {
	Service        string         `json:"service"`
	Mode           *string        `json:"mode,omitempty"`
	Priority       *string        `json:"priority,omitempty"`
	Topic          *string        `json:"topic,omitempty"`
	MutableContent *string        `json:"mutable_content,omitempty"`
	TimeToLive     *string        `json:"time_to_live,omitempty"`
	Alert          *alert         `json:"alert,omitempty"`
	Data           map[string]any `json:"data,omitzero"`
}

type alert struct {
	Title       string  `json:"title"`
	Tag         string  `json:"tag"`
	Body        string  `json:"body"`
	Badge       *int    `json:"badge,omitempty"`
	ClickAction *string `json:"click_action,omitempty"`
	Sound       *string `json:"sound,omitempty"`
}

// body returns what MongooseIM sends for a registration with these publish-options and
// a notification with this summary (mod_push_service_mongoosepush.erl): an alert, or
// with silent = "true" the summary as data.
func body(options, summary []notify.Field) ([]byte, error) {
	service := notify.Value(options, optionService)
	if service == "" {
		return nil, errors.New("the registration has no service among its publish-options")
	}
	r := request{
		Service: service, Mode: given(options, "mode"), Priority: given(options, "priority"), Topic: given(options, "topic"),
		MutableContent: given(options, "mutable_content"), TimeToLive: given(options, "time_to_live"),
	}
	count, err := messageCount(summary)
	if err != nil {
		return nil, err
	}
	if notify.Value(options, optionSilent) == "true" {
		r.Data = data(summary, count)
	} else if r.Alert, err = newAlert(options, summary, count); err != nil {
		return nil, err
	}
	return provider.JSON(&r)
}

// messageCount returns the number of messages, nil when there is none.
func messageCount(summary []notify.Field) (*int, error) {
	text := given(summary, notify.KeyMessageCount)
	if text == nil {
		return nil, nil
	}
	count, err := strconv.Atoi(*text)
	if err != nil {
		return nil, fmt.Errorf("%s is not a number", notify.KeyMessageCount)
	}
	return &count, nil
}

func data(summary []notify.Field, count *int) map[string]any {
	fields := make(map[string]any, len(summary))
	for i := range summary {
		fields[summary[i].Name] = summary[i].Value
	}
	if count != nil {
		fields[notify.KeyMessageCount] = *count
	}
	return fields
}

func newAlert(options, summary []notify.Field, count *int) (*alert, error) {
	sender, text := given(summary, notify.KeySender), given(summary, notify.KeyBody)
	if text == nil {
		return nil, fmt.Errorf("an alert needs %s and %s; register with silent = true for what has neither", notify.KeySender, notify.KeyBody)
	}
	title := notify.GenericBody // if the sender is not to be told: there is no alert without a title
	if sender != nil {
		title = *sender
	}
	return &alert{
		Title: title, Tag: title, Body: *text, Badge: count,
		ClickAction: given(options, "click_action"), Sound: given(options, "sound"),
	}, nil
}

// given returns the value of a field, which may be empty; nil if it is not there.
func given(fields []notify.Field, name string) *string {
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i].Value
		}
	}
	return nil
}

// Target returns the target of a registration with these publish-options.
func Target(options []notify.Field) notify.Target {
	return notify.Target{Kind: notify.MongoosePush, Address: config.Secret(notify.Value(options, optionDevice)), Options: options}
}

// Lacks names the publish-options that a registration needs and has not, or has empty.
// Without them nothing can be sent.
func Lacks(options []notify.Field) (names []string) {
	for _, name := range [...]string{optionDevice, optionService} {
		if notify.Value(options, name) == "" {
			names = append(names, name)
		}
	}
	return names
}

// baseURL returns where the versions of the API are: host and path_prefix of the pool.
func baseURL(host, prefix string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(host, "/") + "/" + strings.TrimLeft(prefix, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		// The parser's error quotes the address, which may hold a password.
		return nil, errors.New("connection.host must be http://name[:port] or https://name[:port]")
	}
	return u, nil
}

// pathOf returns the device's path below the version as one segment. MongooseIM puts
// the id in as it is, so that one with a slash or a question mark means another path.
//
// Proxies decode paths, some of them more than once, and refuse what leads out. A user
// could make one refuse everything from us, so such ids are not sent.
func pathOf(deviceID string) (string, error) {
	if deviceID == "" {
		return "", errors.New("the registration has no device_id among its publish-options")
	}
	if len(deviceID) > maxDevice || strings.ContainsFunc(deviceID, unicode.IsControl) {
		return "", errors.New("the device_id is too long, or has control characters")
	}
	decoded := deviceID
	for range decodings {
		for part := range strings.FieldsFuncSeq(decoded, func(c rune) bool { return c == '/' || c == '\\' || c == ';' }) {
			if part == "." || part == ".." {
				return "", errors.New("the device_id has a step in a path")
			}
		}
		again, err := url.PathUnescape(decoded)
		if err != nil || again == decoded {
			break
		}
		decoded = again
	}
	return url.PathEscape(deviceID), nil
}

// maxDevice is more than any provider's tokens have. decodings is how often an id is
// decoded to look for steps.
const (
	maxDevice = 4096
	decodings = 4
)
