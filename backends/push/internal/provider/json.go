package provider

import (
	"bytes"
	"encoding/json"
)

// usual is the size of most payloads, in bytes.
const usual = 256

// JSON encodes v without the escapes that only HTML needs: a byte of a message
// should cost a byte of a payload.
func JSON(v any) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 0, usual))
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
