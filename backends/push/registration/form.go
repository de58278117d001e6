package registration

import (
	"bytes"
	"encoding/json"
	"fmt"

	"eventpusher/backends/push/notify"
)

// encodeForm writes the options as the JSON object that MongooseIM keeps.
func encodeForm(options []notify.Field) string {
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

// decodeForm reads them in their order.
func decodeForm(form string) ([]notify.Field, error) {
	d := json.NewDecoder(bytes.NewReader([]byte(form)))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("the form of a registration is no JSON object: %.40q", form)
	}
	var list []notify.Field
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value string
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("the form of a registration has a value that is no string: %w", err)
		}
		list = append(list, notify.Field{Name: name.(string), Value: value})
	}
	return list, nil
}
