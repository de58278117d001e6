package config

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"eventpusher/event"
)

// Choice is which events a destination gets, and in which form. It is a part of
// [[destination]] and, beside MongooseIM's keys, of the sections of mod_event_pusher.
type Choice struct {
	Events      []string // sorts of events (event.ParseSelection); nil: those that MongooseIM publishes there
	When        string   // an expression; empty: every one of them
	Format      string   // mongooseim (default), json, cloudevents, cloudevents_binary or template
	Template    string   // of the format template
	ContentType string   // of what Template makes; default application/json
	TooLarge    string   // what becomes of an event that the service finds too large: dead_letter (default) or truncate_body
}

// The values of Choice.Format.
const (
	FormatMongooseIM        = "mongooseim"
	FormatJSON              = "json"
	FormatCloudEvents       = "cloudevents"
	FormatCloudEventsBinary = "cloudevents_binary"
	FormatTemplate          = "template"
)

// TruncateBody is the value of Choice.TooLarge with which an event loses the end of its body.
const TruncateBody = "truncate_body"

func (c *Choice) fields() []field {
	return []field{
		texts("events", &c.Events, nil, isSort),
		when(&c.When),
		choice("format", &c.Format, FormatMongooseIM, FormatMongooseIM, FormatJSON, FormatCloudEvents, FormatCloudEventsBinary, FormatTemplate),
		text("template", &c.Template, nil, filled),
		text("content_type", &c.ContentType, "application/json", nonEmpty),
		choice("too_large", &c.TooLarge, "dead_letter", "dead_letter", TruncateBody),
	}
}

func isSort(s string) *complaint {
	if _, err := event.ParseSelection([]string{s}); err == nil {
		return nil
	}
	names := event.SortNames()
	if near := nearest(s, names); near != "" {
		return &complaint{quote(s) + " is no sort of events", "did you mean " + quote(near) + "?"}
	}
	return &complaint{quote(s) + " is no sort of events", "write some of " + strings.Join(names, ", ")}
}

// choice checks what concerns several keys of a Choice.
func (l *loader) choice(c *Choice, at keyPath) {
	if c.Events != nil && len(c.Events) == 0 {
		l.errorf(at.with("events").String(), "is empty, so nothing would be delivered", `name sorts of events, such as events = ["chat.in"], or remove the key`)
	}
	given := l.given(at.with("template")...)
	switch {
	case c.Format == FormatTemplate:
		l.require(at.with("template").String(), `write the template: template = '{"from": {{json .from}}, "text": {{json .body}}}', say`, !given)
	case given:
		l.errorf(at.with("template").String(), "is used by format = "+quote(FormatTemplate)+" only", "write that format, or remove the template")
	}
	if c.Format != FormatTemplate && l.given(at.with("content_type")...) {
		l.errorf(at.with("content_type").String(), "is used by format = "+quote(FormatTemplate)+" only", "remove the key: every other format has its own")
	}
}

// Destination is one [[destination]].
type Destination struct {
	Name string // in logs, metrics and the outbox; required
	Type string // http, nats, kafka, rabbit, sns, or one that the program adds; required
	Choice
	TLS *TLS // of types http and rabbit

	// Of type http.
	URL     Secret // with everything; who knows it can often post
	Workers int    // requests at once; default 10
	Timeout time.Duration
	HTTP    HTTPDestination

	NATS  NATSDestination  // of type nats
	Kafka KafkaDestination // of type kafka

	// Of type rabbit: what is published, to one exchange, and by which connection.
	Rabbit   Rabbit
	Exchange Exchange
	Broker   RabbitPool

	SNS SNS // of type sns; it has one Topic

	Settings Settings // of a type that the program adds, else nil
	Files    []string // that the Settings read
}

// RabbitSection returns the destination of type rabbit in the terms of MongooseIM's section.
func (d *Destination) RabbitSection() (Rabbit, RabbitPool) {
	section, pool := d.Rabbit, d.Broker
	section.Choice, section.All = d.Choice, &d.Exchange
	pool.TLS, pool.ConfirmsEnabled, pool.Mandatory, pool.ReconnectDelay = d.TLS, true, true, 2*time.Second
	return section, pool
}

// SNSSection returns the destination of type sns in the terms of MongooseIM's section.
func (d *Destination) SNSSection() SNS {
	section := d.SNS
	section.Choice = d.Choice
	return section
}

// destinationTypes are the types of eventpusher and the program's own. MongooseIM has nothing
// like those marked as own, so the default of their format is json.
func destinationTypes(own []Type) []variantOf[Destination] {
	types := []variantOf[Destination]{
		{name: "http", settings: func(d *Destination) Settings { return (*httpSettings)(d) }},
		{name: "nats", own: true, settings: func(d *Destination) Settings { return &d.NATS }},
		{name: "kafka", own: true, settings: func(d *Destination) Settings { return &d.Kafka }},
		{name: "rabbit", settings: func(d *Destination) Settings { return (*rabbitSettings)(d) }},
		{name: "sns", settings: func(d *Destination) Settings { return (*snsSettings)(&d.SNS) }},
	}
	for _, t := range own {
		if t.section == destinationKey {
			types = append(types, variantOf[Destination]{name: t.name, own: true, settings: func(d *Destination) Settings {
				d.Settings = t.settings()
				return d.Settings
			}})
		}
	}
	return types
}

func (d *Destination) common(types []string) []field {
	return append([]field{
		text("name", &d.Name, nil, filled, isDestinationName),
		choice("type", &d.Type, nil, types...),
	}, d.Choice.fields()...)
}

// withoutMongooseIM leaves out the form that only MongooseIM's backends have.
func withoutMongooseIM(fields []field) {
	for i := range fields {
		if f := &fields[i]; f.name == "format" {
			own := choice(f.name, new(string), FormatJSON, FormatJSON, FormatCloudEvents, FormatCloudEventsBinary, FormatTemplate)
			f.def, f.check = own.def, own.check
		}
	}
}

// isDestinationName refuses what cannot stand in a command by itself, and the names of
// MongooseIM's sections.
func isDestinationName(s string) *complaint {
	const longest = 64
	odd := func(r rune) bool { return r == '/' || r == '\\' || !unicode.IsPrint(r) }
	switch {
	case len(s) > longest || strings.ContainsFunc(s, odd) || strings.TrimSpace(s) != s || strings.HasPrefix(s, "-"):
		return &complaint{quote(s) + " cannot be a name", "write " + strconv.Itoa(longest) + " characters at most, no slashes, and no blank or - at its beginning"}
	case s == "sns" || s == "rabbit" || s == "push" || strings.HasPrefix(s, "http:"):
		return &complaint{quote(s) + " is a name of MongooseIM's sections", "choose another name"}
	}
	return nil
}

// destinations checks [[destination]].
func (l *loader) destinations(c *Config) {
	types := destinationTypes(l.own)
	for i := range c.Destinations {
		d, at := &c.Destinations[i], keyPath{destinationKey, position(i)}
		l.require(at.with("name").String(), `give the destination a name for logs, metrics and what waits for it: name = "crm", say`, d.Name == "")
		if d.Name != "" && slices.ContainsFunc(c.Destinations[:i], func(earlier Destination) bool { return earlier.Name == d.Name }) {
			l.errorf(at.with("name").String(), quote(d.Name)+" is the name of an earlier destination", "choose another name")
		}
		l.require(at.with("type").String(), "write one of "+strings.Join(names(types), ", "), d.Type == "")
		l.choice(&d.Choice, at)
		section := &Section{l: l, at: at}
		if d.Settings != nil {
			d.Settings.Check(section)
			d.Files = section.files
		} else if n := slices.IndexFunc(types, func(t variantOf[Destination]) bool { return t.name == d.Type }); n >= 0 {
			types[n].settings(d).Check(section)
		}
		l.tls(d.TLS, at.with("tls").String(), true)
		l.keepVerifyingAt(at.with("tls"))
	}
}

const destinationKey = "destination"

// DestinationPath returns the path of the destination at index i, as problems name it.
func DestinationPath(i int) string { return keyPath{destinationKey, position(i)}.String() }

// destinations is [[destination]], whose keys depend on its type.
func destinations(dst *[]Destination, own []Type) field {
	types := destinationTypes(own)
	return variants(destinationKey, dst, func(d *Destination, entries map[string]any) ([]field, map[string]string) {
		common := d.common(names(types))
		if i := slices.IndexFunc(types, func(t variantOf[Destination]) bool { return t.name == entries["type"] }); i >= 0 && types[i].own {
			withoutMongooseIM(common)
		}
		return pick(d, common, types, entries)
	})
}
