package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// variablePrefix starts the name of every environment variable that is ours.
const variablePrefix = "EVENTPUSHER_"

// kubernetesVariables are what Kubernetes sets in every container when a service
// happens to be called eventpusher.
var kubernetesVariables = regexp.MustCompile(`^EVENTPUSHER_(SERVICE_(HOST|PORT.*)|PORT(_\d+_(TCP|UDP).*)?)$`)

// A variable is a key that the environment can set.
type variable struct {
	name  string
	path  keyPath
	field *field
}

// variables lists what the environment can set: every scalar key, and those of each
// tagged table in the file. Arrays of tables have no names, so none of theirs.
func variables(at keyPath, fields []field, clean map[string]any) []variable {
	var all []variable
	for i := range fields {
		f := &fields[i]
		here := at.with(f.name)
		below, _ := clean[f.name].(map[string]any)
		switch f.shape {
		case listShape, formulasShape:
		case tableShape, sectionShape:
			all = append(all, variables(here, f.fields(), below)...)
		case taggedShape:
			for _, tag := range slices.Sorted(maps.Keys(below)) {
				entries, _ := below[tag].(map[string]any)
				all = append(all, variables(here.with(tag), f.fields(), entries)...)
			}
		default:
			all = append(all, variable{here.variable(), here, f})
		}
	}
	return all
}

// environment checks the variables of env that are ours and calls set with each
// value. An empty variable counts as unset, as viper has it.
func (c *checker) environment(env []string, known []variable, set func(keyPath, any)) {
	byName := make(map[string][]variable, len(known))
	names := make([]string, len(known))
	for i, v := range known {
		byName[v.name] = append(byName[v.name], v)
		names[i] = strings.ToLower(v.name)
	}
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, variablePrefix) || kubernetesVariables.MatchString(name) {
			continue
		}
		meant := byName[name]
		switch {
		case len(meant) == 0:
			c.unknownVariable(name, names)
		case value == "":
		case len(meant) > 1:
			c.errorf(name, "names both "+meant[0].path.String()+" and "+meant[1].path.String(), "set them in the file, or rename one")
		default:
			c.variable(meant[0], value, set)
		}
	}
}

func (c *checker) unknownVariable(name string, names []string) {
	remedy := "remove it"
	if near := nearest(strings.ToLower(name), names); near != "" {
		remedy = "did you mean " + strings.ToUpper(near) + "?"
	}
	c.warn(quoteName(name), "the environment variable matches no key", remedy)
}

func (c *checker) variable(v variable, value string, set func(keyPath, any)) {
	converted, bad := fromText(v.field.shape, value)
	if bad == nil {
		bad = v.field.check(converted)
	}
	if bad != nil {
		c.errorf(v.path.String(), "from "+v.name+": "+bad.text, bad.remedy)
		return
	}
	set(v.path, converted)
}

// fromText turns the text of a variable into the notation of the file.
func fromText(s shape, value string) (any, *complaint) {
	switch s {
	case integerShape:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return nil, &complaint{"is not an integer", "write digits only"}
		}
		return n, nil
	case booleanShape:
		switch value {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, &complaint{"is neither true nor false", "write one of them"}
	case sizeShape:
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			return n, nil
		}
	case textsShape:
		items := []any{}
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
		return items, nil
	}
	return value, nil
}

// quoteName shows a variable's name, which can be any bytes.
func quoteName(name string) string {
	if bareKey(name) && len(name) < 200 {
		return name
	}
	return fmt.Sprintf("%q", clip(name))
}
