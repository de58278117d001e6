package stanza

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// agree fails the test unless the decoder and the oracle think the same of a frame.
func agree(t *testing.T, d *Decoder, frame []byte, l Limits) {
	t.Helper()
	v := judge(frame, l)
	var env Envelope
	given := bytes.Clone(frame)
	err := d.Decode(given, &env)
	if !bytes.Equal(given, frame) {
		t.Fatal("the decoder changed the frame")
	}
	for i := range given {
		given[i] = '#' // nothing may share the frame's memory
	}
	if errors.Is(v.err, errNoVerdict) {
		return
	}
	if (err == nil) != (v.err == nil) {
		t.Fatalf("decoder: %v, oracle: %v\n%q", err, v.err, frame)
	}
	if err != nil {
		var refused *StanzaError
		if !errors.As(err, &refused) {
			t.Fatalf("error of type %T", err)
		}
		if refused.Defect.String() == defectNames[0] || refused.Offset < 0 || refused.Offset > len(frame) {
			t.Fatalf("defect %d at %d of %d", refused.Defect, refused.Offset, len(frame))
		}
		if v.started {
			if diff := cmp.Diff(v.env.Outer, env.Outer); diff != "" {
				t.Fatalf("addresses of a refused frame (-oracle +decoder):\n%s%q", diff, frame)
			}
			if diff := cmp.Diff(v.env.Feed, env.Feed); diff != "" {
				t.Fatalf("feed of a refused frame (-oracle +decoder):\n%s%q", diff, frame)
			}
		}
		return
	}
	outer, inner := env.Outer.Raw, env.Inner.Raw
	env.Outer.Raw, env.Inner.Raw = "", ""
	if diff := cmp.Diff(v.env, env); diff != "" {
		t.Fatalf("(-oracle +decoder):\n%s%q", diff, frame)
	}
	if err := standsAlone(outer, v.root); err != nil {
		t.Fatalf("outer Raw %q: %v\n%q", outer, err, frame)
	}
	if v.payload == nil {
		if inner != "" {
			t.Fatalf("inner Raw %q of a stanza that forwards none", inner)
		}
		return
	}
	if err := standsAlone(inner, v.payload); err != nil {
		t.Fatalf("inner Raw %q: %v\n%q", inner, err, frame)
	}
	// What declares all it uses stays as it came.
	verbatim := string(frame[v.payload.start:v.payload.end])
	if alone, err := strictAlone(verbatim); err == nil && alone && v.payload.own == clientURI && inner != verbatim {
		t.Fatalf("inner Raw %q, want %q", inner, verbatim)
	}
}

// strictAlone reports whether an element is well-formed in namespaces without anything
// around it.
func strictAlone(raw string) (bool, error) {
	d := xml.NewDecoder(strings.NewReader(raw))
	scopes := []map[string]string{{"xml": xmlURI}}
	for {
		tok, err := d.RawToken()
		if err != nil {
			return false, err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			scope := map[string]string{}
			for p, uri := range scopes[len(scopes)-1] {
				scope[p] = uri
			}
			for _, a := range tok.Attr {
				if a.Name.Space == "xmlns" {
					scope[a.Name.Local] = a.Value
				}
			}
			used := []string{tok.Name.Space}
			for _, a := range tok.Attr {
				used = append(used, a.Name.Space)
			}
			for _, p := range used {
				if p != "" && p != "xmlns" && scope[p] == "" {
					return false, nil
				}
			}
			scopes = append(scopes, scope)
		case xml.EndElement:
			scopes = scopes[:len(scopes)-1]
			if len(scopes) == 1 {
				return true, nil
			}
		}
	}
}

// standsAlone says how raw, on its own, differs from the element it was made of.
func standsAlone(raw string, want *node) error {
	if alone, err := strictAlone(raw); err != nil || !alone {
		return fmt.Errorf("undeclared prefix, or %w", err)
	}
	got, err := tree("", []byte(raw))
	if err != nil {
		return err
	}
	if int(got.end) != len(raw) || got.start != 0 {
		return errors.New("more than one element")
	}
	if !got.declared || got.own != clientURI {
		return errors.New("jabber:client is not declared on it")
	}
	return sameNode(got, want)
}

func sameNode(got, want *node) error {
	if got.name != want.name &&
		(got.name.Local != want.name.Local || got.name.Space != clientURI || !isContentURI(want.name.Space)) {
		return fmt.Errorf("element %v, want %v", got.name, want.name)
	}
	if diff := cmp.Diff(want.attr, got.attr); diff != "" {
		return fmt.Errorf("attributes of %v: %s", got.name, diff)
	}
	if len(got.children) != len(want.children) {
		return fmt.Errorf("%d children of %v, want %d", len(got.children), got.name, len(want.children))
	}
	for i := range got.children {
		a, isElement := got.children[i].(*node)
		b, wantElement := want.children[i].(*node)
		if isElement != wantElement || !isElement && got.children[i] != want.children[i] {
			return fmt.Errorf("child %d of %v differs", i, got.name)
		}
		if isElement {
			if err := sameNode(a, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// tight are limits that a fuzzer can reach.
var tight = Limits{Size: 2048, Depth: 8}

func FuzzDecode(f *testing.F) {
	for _, frame := range corpus(f) {
		f.Add(frame)
	}
	for _, c := range accepted {
		f.Add([]byte(c.frame))
	}
	for _, c := range refused {
		f.Add([]byte(c.frame))
	}
	for _, c := range feedFrames {
		f.Add([]byte(c.frame))
		f.Add([]byte(c.frame[:2*len(c.frame)/3]))
	}
	d := NewDecoder(tight)
	f.Fuzz(func(t *testing.T, frame []byte) {
		agree(t, d, frame, tight)
	})
}
