package mongoosepush

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"strings"

	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
)

// The names of publish-options. MongooseIM forwards no others; tags among them, by
// which MongoosePush chooses its pool, are not for users to say.
const (
	OptionService = "service" // apns or fcm; the one that must be there
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
func body(options, summary map[string]string) ([]byte, error) {
	service := options[OptionService]
	if service == "" {
		return nil, errors.New("the registration has no service among its publish-options")
	}
	request := map[string]any{OptionService: service}
	for _, name := range forwarded {
		if value, given := options[name]; given {
			request[name] = value
		}
	}
	count, err := messageCount(summary)
	if err != nil {
		return nil, err
	}
	if options[optionSilent] == "true" {
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

func alert(options, summary map[string]string, count any) (map[string]any, error) {
	sender, hasSender := summary[notify.KeySender]
	text, hasText := summary[notify.KeyBody]
	if !hasSender || !hasText {
		return nil, fmt.Errorf("an alert needs %s and %s; register with silent = true for what has neither", notify.KeySender, notify.KeyBody)
	}
	fields := map[string]any{"title": sender, "tag": sender, "body": text}
	if count != nil {
		fields["badge"] = count
	}
	for _, name := range forwardedInAlert {
		if value, given := options[name]; given {
			fields[name] = value
		}
	}
	return fields, nil
}

// summaryOf returns n as the summary of XEP-0357, with its data as further fields. In
// an alert the sender is the title, so that the title takes its place where the
// content mode keeps the sender back.
func summaryOf(n *notify.Notification, silent bool) map[string]string {
	fields := make(map[string]string, 3+len(n.Data))
	sender := n.Sender
	if sender == "" {
		sender = n.Title
	}
	if sender != "" || !silent {
		fields[notify.KeySender] = sender
	}
	if n.Body != "" || !silent {
		fields[notify.KeyBody] = n.Body
	}
	switch {
	case n.MessageCount > 0:
		fields[notify.KeyMessageCount] = strconv.Itoa(n.MessageCount)
	case !silent:
		fields[notify.KeyMessageCount] = "1" // what MongooseIM says when it does not count
	}
	maps.Copy(fields, n.Data)
	return fields
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
func pathOf(deviceID string) (string, error) {
	switch deviceID {
	case "":
		return "", errors.New("the registration has no device_id among its publish-options")
	case ".", "..":
		return "", errors.New("the device_id is a step in a path")
	}
	return url.PathEscape(deviceID), nil
}
