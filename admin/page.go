package admin

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"path"
	"slices"
)

// The page and its files come from this server alone. The policy admits nothing that is
// written into the page itself, so that a text in it cannot become a script or a style.
var (
	//go:embed page/page.html
	pageSource string
	//go:embed page/*.css page/*.js page/*.svg
	pageDir embed.FS

	pageTemplate = template.Must(template.New("page").Parse(pageSource))
)

const pagePolicy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"

var fileTypes = map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

// pageFiles returns what serves the files of the page, by path. They are the same for
// everybody and hold nothing of this instance.
func pageFiles() map[string]http.HandlerFunc {
	files := make(map[string]http.HandlerFunc)
	list, err := fs.Glob(pageDir, "page/*")
	if err != nil {
		panic(err) // the pattern is constant
	}
	for _, name := range list {
		data, err := pageDir.ReadFile(name)
		if err != nil {
			panic(err) // it is part of the program
		}
		files["/"+name] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", fileTypes[path.Ext(name)])
			_, _ = w.Write(data) // the peer has gone: nobody to tell
		}
	}
	return files
}

type pageData struct {
	Live     bool // there are events and dead letters to show
	SignIn   bool // the token is missing
	NotReady []string
	Status   node
	Fields   []string // of expressions
}

// node is a JSON value laid out for people: a text, fields in the order of the
// JSON, a list, or, for a list of objects, a table. Exactly one of the four is
// set, all empty is an empty text.
type node struct {
	Text    string
	Fields  []field
	Items   []node
	Columns []string
	Rows    [][]node
}

type field struct {
	Name  string
	Value node
}

// parseNode lays out a JSON document.
func parseNode(raw []byte) (node, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	n, err := readNode(d)
	if err != nil {
		return node{}, fmt.Errorf("lay out status: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return node{}, errors.New("lay out status: more than one JSON value")
	}
	return n, nil
}

// readNode reads token by token because a map would lose the order of the keys.
func readNode(d *json.Decoder) (node, error) {
	t, err := d.Token()
	if err != nil {
		return node{}, err
	}
	switch t {
	case json.Delim('{'):
		return readObject(d)
	case json.Delim('['):
		return readList(d)
	case nil:
		return node{Text: "-"}, nil
	}
	return node{Text: fmt.Sprint(t)}, nil
}

func readObject(d *json.Decoder) (node, error) {
	var n node
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return node{}, err
		}
		value, err := readNode(d)
		if err != nil {
			return node{}, err
		}
		n.Fields = append(n.Fields, field{Name: fmt.Sprint(key), Value: value})
	}
	_, err := d.Token() // the closing brace
	return n, err
}

func readList(d *json.Decoder) (node, error) {
	var items []node
	for d.More() {
		item, err := readNode(d)
		if err != nil {
			return node{}, err
		}
		items = append(items, item)
	}
	if _, err := d.Token(); err != nil {
		return node{}, err
	}
	if slices.ContainsFunc(items, func(n node) bool { return len(n.Fields) == 0 }) {
		return node{Items: items}, nil
	}
	return table(items), nil
}

// table turns objects into rows; a field that an object lacks is an empty cell.
func table(objects []node) node {
	var n node
	for _, o := range objects {
		for _, f := range o.Fields {
			if !slices.Contains(n.Columns, f.Name) {
				n.Columns = append(n.Columns, f.Name)
			}
		}
	}
	for _, o := range objects {
		row := make([]node, len(n.Columns))
		for _, f := range o.Fields {
			row[slices.Index(n.Columns, f.Name)] = f.Value
		}
		n.Rows = append(n.Rows, row)
	}
	return n
}
