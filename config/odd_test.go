package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOddSecretFiles: what editors and shells leave in files is skipped, or told.
func TestOddSecretFiles(t *testing.T) {
	for name, c := range map[string]struct{ content, secret, warning string }{
		"plain":             {"s3cr3t-of-its-own\n", "s3cr3t-of-its-own", ""},
		"Windows":           {"s3cr3t-of-its-own\r\n", "s3cr3t-of-its-own", ""},
		"byte order mark":   {"\xef\xbb\xbfs3cr3t-of-its-own\n", "s3cr3t-of-its-own", ""},
		"a blank":           {"s3cr3t-of-its-own \n", "s3cr3t-of-its-own ", "blanks or line ends"},
		"two lines":         {"s3cr3t-of-its-own\n\n", "s3cr3t-of-its-own\n", "blanks or line ends"},
		"UTF-16":            {"\xff\xfes\x003\x00\r\x00\n\x00", "\xff\xfes\x003\x00\r\x00\n\x00", "UTF-16"},
		"NUL":               {"a\x00b\n", "a\x00b", "NUL"},
		"a key with a mark": {"\xef\xbb\xbf-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n\n", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "secret.txt")
			if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, problems := Parse([]byte("[component]\nname = \"events.example.org\"\nsecret_file = \""+file+"\"\n[general]\nhosts = [\"example.org\"]\n"), nil, "")
			if cfg == nil {
				t.Fatal(problems)
			}
			if got := cfg.Component.Secret.Reveal(); got != c.secret {
				t.Errorf("the secret is %q, want %q", got, c.secret)
			}
			told := ""
			for _, p := range problems {
				if p.Path == "component.secret_file" {
					told += p.Text
				}
			}
			if (told == "") != (c.warning == "") || !strings.Contains(told, c.warning) || told != "" && !strings.Contains(told, file) {
				t.Errorf("told %q, want %q", told, c.warning)
			}
			if told != "" && strings.Contains(told, "s3cr3t-of-its-own") {
				t.Error("the secret is shown")
			}
		})
	}
}
