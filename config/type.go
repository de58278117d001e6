package config

import "slices"

// Settings are the keys of one [[destination]] or [[filter]] beside those that all types have.
// They are a pointer to a struct. The types of eventpusher and those that a program adds are
// read and checked in the same way.
type Settings interface {
	// Keys binds each key to the field that its value goes to. It is called for new settings,
	// and returns the same keys every time.
	Keys() []Key
	// Check is called once the fields are filled. It reports what is missing and what
	// concerns several keys, and may resolve file names.
	Check(s *Section)
}

// Type is a type of [[destination]] or [[filter]] that a program adds to those of
// eventpusher.
type Type struct {
	section, name string
	settings      func() Settings
}

// DestinationType returns a type of [[destination]]. settings returns new settings. They
// implement catalog.Builder as well.
func DestinationType(name string, settings func() Settings) Type {
	return Type{destinationKey, name, settings}
}

// FilterType returns a type of [[filter]]. settings returns new settings. They implement
// filter.Builder as well.
func FilterType(name string, settings func() Settings) Type {
	return Type{filterKey, name, settings}
}

// checkTypes reports mistakes of the program's author, and returns the types without any.
func (l *loader) checkTypes(own []Type) (sound []Type) {
	for _, t := range own {
		var known []string
		var common []field
		if t.section == destinationKey {
			known, common = names(destinationTypes(sound)), new(Destination).common(nil)
		} else {
			known, common = names(filterTypes(sound)), new(Filter).common(nil)
		}
		fault := ""
		if t.name == "" || slices.Contains(known, t.name) {
			fault = "its name is empty or taken"
		}
		keys := t.settings().Keys()
		for i, key := range keys {
			same := func(f field) bool { return f.name == key.name }
			if slices.ContainsFunc(common, same) {
				fault = "its key " + quote(key.name) + " is one that every type has"
			} else if slices.ContainsFunc(keys[:i], same) {
				fault = "its key " + quote(key.name) + " is there twice"
			}
		}
		if fault != "" {
			l.errorf(keyPath{t.section}.with("type").String(), "this program adds a type "+quote(t.name)+" that cannot be used: "+fault, "correct it in the program's source")
			continue
		}
		sound = append(sound, t)
	}
	return sound
}

// variantOf is a type of a section, whose settings are in the section's struct or made for it.
type variantOf[T any] struct {
	name     string
	own      bool
	settings func(*T) Settings
}

func names[T any](types []variantOf[T]) (list []string) {
	for _, t := range types {
		list = append(list, t.name)
	}
	return list
}

// pick returns the keys that t may have by its type, the common ones first, and what to say of
// those that only other types have. Without a known type it may have all.
func pick[T any](t *T, common []field, types []variantOf[T], entries map[string]any) (known []field, others map[string]string) {
	var foreign []field
	found := ""
	for _, v := range types {
		if v.name == entries["type"] {
			found = v.name
			known = append(common, v.settings(t).Keys()...)
		} else {
			foreign = append(foreign, v.settings(new(T)).Keys()...)
		}
	}
	if known == nil {
		return append(common, foreign...), nil
	}
	others = make(map[string]string)
	for _, f := range foreign {
		if !slices.ContainsFunc(known, func(own field) bool { return own.name == f.name }) {
			others[f.name] = "it is no key of type " + quote(found) + ": remove it"
		}
	}
	return known, others
}

// Section is a [[destination]] or [[filter]] while its settings are checked. A key is the
// name of one of their keys; empty, it stands for the section.
type Section struct {
	l     *loader
	at    keyPath
	files []string // that File was asked for
}

func (s *Section) path(key string) string {
	if key == "" {
		return s.at.String()
	}
	return s.at.with(key).String()
}

// Error says what is wrong with a key and what to do. Neither text may hold a secret. With an
// error nothing starts.
func (s *Section) Error(key, text, remedy string) { s.l.errorf(s.path(key), text, remedy) }

// Warn says what works, but not as the key seems to say, and what to do.
func (s *Section) Warn(key, text, remedy string) { s.l.warn(s.path(key), text, remedy) }

// Require is an error if a key is missing, unless there is one about this key already. remedy
// shows what to write.
func (s *Section) Require(key, remedy string, missing bool) {
	s.l.require(s.path(key), remedy, missing)
}

// Given reports whether the section has the key.
func (s *Section) Given(key string) bool { return s.l.given(s.at.with(key)...) }

// File returns the file that a key names, relative to the directory of the configuration. It
// is an error if there is no such file. A reload that finds a destination's file changed builds the
// destination anew.
func (s *Section) File(key, name string) string {
	resolved := s.l.file(name, s.path(key), true)
	s.files = append(s.files, resolved)
	return resolved
}

// Resolve is File for a file that need not be there.
func (s *Section) Resolve(name string) string {
	if name == "" {
		return ""
	}
	return s.l.resolve(name)
}
