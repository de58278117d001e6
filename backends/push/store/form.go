package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"eventpusher/backends/push/notify"
)

// FieldRules is the option as which rules are kept in MongooseIM's table, which has no other
// place for them.
const FieldRules = "urn:eventpusher:push:rules"

// encodeForm writes the options as the JSON object that MongooseIM keeps, with the rules
// as one more.
func encodeForm(s *Service) string {
	options := s.Options
	if s.Rules != nil {
		rules, _ := json.Marshal(s.Rules) // texts and numbers always encode
		options = append(slices.Clip(options), notify.Field{Name: FieldRules, Value: string(rules)})
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for i, o := range options {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(o.Name) // a string always encodes
		value, _ := json.Marshal(o.Value)
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.String()
}

// decodeForm reads them into s, in their order.
func decodeForm(form string, s *Service) error {
	d := json.NewDecoder(bytes.NewReader([]byte(form)))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("the form of a registration is no JSON object, but %d bytes of something else", len(form))
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value string
		if err := d.Decode(&value); err != nil {
			return fmt.Errorf("the form of a registration has a value that is no string: %w", err)
		}
		if name == FieldRules {
			if err := json.Unmarshal([]byte(value), &s.Rules); err != nil {
				return fmt.Errorf("the rules of a registration cannot be read: %w", err)
			}
			continue
		}
		s.Options = append(s.Options, notify.Field{Name: name.(string), Value: value})
	}
	return nil
}
