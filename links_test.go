package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	fenced  = regexp.MustCompile("(?s)```.*?```")
)

// Every link of a page leads to a file that is there, and to a heading in it.
func TestLinks(t *testing.T) {
	pages := 0
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == "dist" || len(path) > 1 && entry.Name()[0] == '.') {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		pages++
		text, err := os.ReadFile(path)
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(string(text), ""), -1) {
			if target, bad := follow(path, m[1]); bad != "" {
				t.Errorf("%s: the link %s leads to %s, %s", path, m[1], target, bad)
			}
		}
		return err
	})
	if err != nil || pages < 20 {
		t.Fatalf("%d pages, %v", pages, err)
	}
}

// follow returns the file that a link leads to, and what is wrong with it.
func follow(page, link string) (target, bad string) {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return link, ""
	}
	name, anchor, _ := strings.Cut(link, "#")
	target = page
	if name != "" {
		target = filepath.Join(filepath.Dir(page), name)
	}
	if _, err := os.Stat(target); err != nil {
		return target, "which is not there"
	}
	if anchor == "" {
		return target, ""
	}
	text, err := os.ReadFile(target)
	if err != nil {
		return target, err.Error()
	}
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(string(text), ""), -1) {
		if slug(m[1]) == anchor {
			return target, ""
		}
	}
	return target, "which has no such heading"
}

// slug is the anchor that web pages of repositories give a heading.
func slug(heading string) string {
	heading = link.ReplaceAllString(strings.ToLower(heading), "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r > 127:
			return r
		}
		return -1
	}, heading)
}
