package provider

import (
	"bytes"
	"encoding/json"
)

// JSON encodes v without the escapes that only HTML needs: a byte of a message
// should cost a byte of a payload.
func JSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
