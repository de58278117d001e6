package mongoosepush

import (
	"encoding/json"
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

var (
	// forwarded go beside the alert or the data, all as the texts that they are.
	forwarded = [...]string{"mode", "priority", "topic", "mutable_content", "time_to_live"}
	// forwardedInAlert go into the alert.
	forwardedInAlert = [...]string{"click_action", "sound"}
)

// body returns what MongooseIM sends for a registration with these publish-options and
// a notification with this summary (mod_push_service_mongoosepush.erl): an alert, or
// with silent = "true" the summary as data. Versions 2 and 3 do not differ in it.
func body(options []notify.Field, summary map[string]string) ([]byte, error) {
	service := notify.Value(options, optionService)
	if service == "" {
		return nil, errors.New("the registration has no service among its publish-options")
	}
	request := map[string]any{optionService: service}
	for _, name := range forwarded {
		if value, given := option(options, name); given {
			request[name] = value
		}
	}
	count, err := messageCount(summary)
	if err != nil {
		return nil, err
	}
	if notify.Value(options, optionSilent) == "true" {
		request["data"] = data(summary, count)
	} else if request["alert"], err = alert(options, summary, count); err != nil {
		return nil, err
	}
	return provider.JSON(request)
}

// messageCount returns the number as JSON writes it, nil when there is none.
func messageCount(summary map[string]string) (any, error) {
	text, given := summary[notify.KeyMessageCount]
	if !given {
		return nil, nil
	}
	count, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%s is not a number", notify.KeyMessageCount)
	}
	return json.Number(strconv.Itoa(count)), nil
}

func data(summary map[string]string, count any) map[string]any {
	fields := make(map[string]any, len(summary))
	for key, value := range summary {
		fields[key] = value
	}
	if count != nil {
		fields[notify.KeyMessageCount] = count
	}
	return fields
}

func alert(options []notify.Field, summary map[string]string, count any) (map[string]any, error) {
	sender, hasSender := summary[notify.KeySender]
	text, hasText := summary[notify.KeyBody]
	if hasText && !hasSender {
		// The sender is not to be told, and there is no alert without a title.
		sender, hasSender = notify.GenericBody, true
	}
	if !hasSender || !hasText {
		return nil, fmt.Errorf("an alert needs %s and %s; register with silent = true for what has neither", notify.KeySender, notify.KeyBody)
	}
	fields := map[string]any{"title": sender, "tag": sender, "body": text}
	if count != nil {
		fields["badge"] = count
	}
	for _, name := range forwardedInAlert {
		if value, given := option(options, name); given {
			fields[name] = value
		}
	}
	return fields, nil
}

// option returns the value of an option and whether it is there, which it may be empty.
func option(options []notify.Field, name string) (string, bool) {
	for i := range options {
		if options[i].Name == name {
			return options[i].Value, true
		}
	}
	return "", false
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
