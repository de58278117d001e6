package config

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// warnings returns the warnings of a configuration that is accepted, as their paths and texts.
func warnings(t *testing.T, file string) (all []string) {
	t.Helper()
	c, problems := Parse([]byte(file), nil, "")
	if c == nil {
		t.Fatalf("refused:\n%s", lines(problems))
	}
	for _, p := range problems {
		if p.Severity == Warning {
			all = append(all, p.Path+": "+p.Text)
		}
	}
	return all
}

// TestUnsafeLinks: each way out that can be read on the way is named, and no other.
func TestUnsafeLinks(t *testing.T) {
	const (
		clear  = "is reached over the network without TLS"
		guest  = "everybody knows it"
		rabbit = "[modules.mod_event_pusher.rabbit.presence_exchange]\ndurable = true\n[outgoing_pools.rabbit.event_pusher.connection]\n"
		hook   = "[[modules.mod_event_pusher.http.handlers]]\n[outgoing_pools.http.http_pool.connection]\n"
		sns    = "[modules.mod_event_pusher.sns]\npm_messages_topic = 'pm'\naccount_id = '1'\nregion = 'eu-west-1'\n"
		sql    = "[modules.mod_event_pusher.push]\nbackend = 'rdbms'\n[outgoing_pools.rdbms.default.connection]\ndriver = 'pgsql'\ndatabase = 'd'\nusername = 'u'\npassword = 'p'\n"
		bus    = "[[destination]]\nname = 'd'\ntype = 'rabbit'\nexchange = 'e'\n"
		kafka  = "[[destination]]\nname = 'd'\ntype = 'kafka'\ntopic = 't'\n"
		nats   = "[[destination]]\nname = 'd'\ntype = 'nats'\nsubject = 's'\n"
		web    = "[[destination]]\nname = 'd'\ntype = 'http'\n"
		topic  = "[[destination]]\nname = 'd'\ntype = 'sns'\ntopic = 'arn:aws:sns:eu-west-1:123456789012:e'\n"
		apns   = "[modules.mod_event_pusher.push]\n[[push.app]]\nname = 'a'\n[push.app.apns]\nkey = 'k'\nkey_id = 'k'\nteam_id = 't'\ntopics = ['t']\n"
	)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ file, path, text string }{
		{rabbit + "host = '127.0.0.1'", "", ""},
		{rabbit + "host = 'mq.example.org'\npassword = 'p4'", "outgoing_pools.rabbit.event_pusher.connection.host", clear},
		{rabbit + "addresses = ['localhost:5672', 'mq:5672']\nusername = 'u'", "outgoing_pools.rabbit.event_pusher.connection.addresses", clear},
		{rabbit + "host = 'mq.example.org'\nport = 5671\ntls.verify_mode = 'peer'", "outgoing_pools.rabbit.event_pusher.connection.username", guest},
		{"[outgoing_pools.rabbit.event_pusher.connection]\nhost = 'unused.example.org'\n" + web + "url = 'https://a.example.org'", "", ""},
		{bus, "", ""},
		{bus + "addresses = ['mq:5671']\nusername = 'u'\n[destination.tls]", "", ""},
		{bus + "addresses = ['mq:5671']\nsasl = 'external'\n[destination.tls]\ncertfile = '" + key + "'\nkeyfile = '" + key + "'", "", ""},
		{bus + "addresses = ['mq:5671']\n[destination.tls]", "destination[1].username", guest},
		{bus + "addresses = ['mq:5672']\nusername = 'u'", "destination[1].addresses", clear},
		{bus + "username = 'u'\n[destination.tls]\nverify_mode = 'none'", "destination[1].tls.verify_mode", "checks no certificate"},
		{hook + "host = 'http://hooks.example.org'", "outgoing_pools.http.http_pool.connection.host", clear},
		{hook + "host = 'http://[::1]:8000'", "", ""},
		{sns + "sns_host = 'http://sns.example.org'", "modules.mod_event_pusher.sns.sns_host", clear},
		{sns + "sns_host = 'sns.example.org'", "", ""},
		{topic + "endpoint = 'http://sns.example.org'", "destination[1].endpoint", clear},
		{topic, "", ""},
		{sql + "host = 'db.example.org'", "outgoing_pools.rdbms.default.connection.host", clear},
		{sql + "host = 'localhost'", "", ""},
		{kafka + "brokers = ['localhost:9092', 'k:9092']", "destination[1].brokers", clear},
		{kafka + "brokers = ['k:9092']\n[destination.tls]", "", ""},
		{nats + "url = 'tls://a, nats://b'", "destination[1].url", clear},
		{nats + "url = 'tls://a, wss://b'", "", ""},
		{web + "url = 'http://a.example.org'", "destination[1].url", clear + ": every event can"},
		{web + "url = 'http://a.example.org'\nbearer_token = 'x'", "destination[1].url", "every event and what authenticates us"},
		{web + "url = 'https://a.example.org'\n[destination.oauth2]\nclient_id = 'c'\nclient_secret = 's'\ntoken_url = 'http://b.example.org'", "destination[1].oauth2.token_url", clear},
		{apns + "url = 'http://push.example.org'", "push.app[1].apns.url", clear},
		{apns, "", ""},
	} {
		start, _, _ := strings.Cut(minimal, "[modules")
		got := warnings(t, start+tt.file)
		if tt.path == "" && len(got) > 0 || tt.path != "" && (len(got) != 1 || !strings.HasPrefix(got[0], tt.path+": ") || !strings.Contains(got[0], tt.text)) {
			t.Errorf("%s\n%q, want %s: %s", tt.file, got, tt.path, tt.text)
		}
	}
}

// TestPublicSecrets: no secret of the documentation passes unnoticed, wherever it is used.
func TestPublicSecrets(t *testing.T) {
	tree, _ := exampleTree(t)
	shown := secretsOf(new(Config).fields(nil), tree)
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```")
	for _, pattern := range []string{"../README.md", "../docs/*.md", "../docs/servers/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, block := range blocks.FindAllSubmatch(text, -1) {
				var part map[string]any
				if err := toml.Unmarshal(block[1], &part); err == nil { // some blocks are parts of tables
					shown = append(shown, secretsOf(new(Config).fields(nil), part)...)
				}
			}
		}
	}
	if len(shown) < 20 {
		t.Errorf("found %q", shown)
	}
	for _, secret := range shown {
		if secret != "guest" && !slices.Contains(publicSecrets, secret) {
			t.Errorf("%q is shown, and not in publicSecrets", secret)
		}
	}
	if got := warnings(t, strings.Replace(minimal, "hunter2-component", "change-me", 1)); len(got) != 1 || !strings.HasPrefix(got[0], "component.secret: ") {
		t.Errorf("%q", got)
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("change-me\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := warnings(t, strings.Replace(minimal, `secret = "hunter2-component"`, "secret_file = '"+file+"'", 1))
	if len(got) != 1 || !strings.HasPrefix(got[0], "component.secret_file: ") {
		t.Errorf("%q", got)
	}
}

// secretsOf returns the values of all secrets in a table but addresses.
func secretsOf(fields []field, table map[string]any) (all []string) {
	for i, f := range fields {
		switch value := table[f.name].(type) {
		case string:
			if i+1 < len(fields) && fields[i+1].secret != nil && f.name != "url" && f.name != "path" {
				all = append(all, value)
			}
		case map[string]any:
			if f.shape == taggedShape {
				for _, one := range value {
					all = append(all, secretsOf(f.fields(), one.(map[string]any))...)
				}
			} else {
				all = append(all, secretsOf(f.fields(), value)...)
			}
		case []any:
			for _, one := range value {
				if item, ok := one.(map[string]any); ok {
					all = append(all, secretsOf(f.fields(), item)...)
				}
			}
		}
	}
	return all
}

// TestExposedFiles: files are named that other users of the machine can read or write.
func TestExposedFiles(t *testing.T) {
	const readable, writable = "can be read by every user", "can be written by every user"
	for _, tt := range []struct {
		name      string
		directory os.FileMode
		mode      os.FileMode
		want      string
	}{
		{"for the owner", 0o755, 0o600, ""},
		{"for the group", 0o755, 0o660, ""},
		{"readable", 0o755, 0o644, readable},
		{"readable in a directory that is closed", 0o750, 0o644, ""},
		{"writable", 0o755, 0o602, writable},
	} {
		dir := t.TempDir()
		for _, d := range []string{dir, filepath.Dir(dir)} { // os.MkdirTemp closes it
			if err := os.Chmod(d, tt.directory); err != nil {
				t.Fatal(err)
			}
		}
		path := func(name, text string, mode os.FileMode) string {
			name = filepath.Join(dir, name)
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(name, mode); err != nil {
				t.Fatal(err)
			}
			return name
		}
		path("secret", "hunter2", tt.mode)
		path("key", "hunter2", tt.mode)
		inline := path("inline.toml", minimal, tt.mode)
		outside := path("outside.toml", strings.Replace(minimal, `secret = "hunter2-component"`, "secret_file = 'secret'\ntls = { certfile = 'key', keyfile = 'key' }", 1), tt.mode)
		for file, paths := range map[string][]string{
			inline:  {inline},
			outside: {outside, "component.secret_file", "component.tls.keyfile"},
		} {
			_, problems := Load(file, nil)
			for _, at := range paths {
				want := tt.want
				if at == outside && want == readable { // it holds no secret
					want = ""
				}
				i := slices.IndexFunc(problems, func(p Problem) bool { return p.Path == at })
				if (i >= 0) != (want != "") || i >= 0 && !strings.Contains(problems[i].Text, want) {
					t.Errorf("%s: %s: got\n%swant %q", tt.name, at, lines(problems), want)
				}
			}
		}
	}
}

// TestExposedOutbox: a directory that others can enter or list is named, and one of root's.
func TestExposedOutbox(t *testing.T) {
	top, err := os.MkdirTemp("", "exposed")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	dir := filepath.Join(top, "outbox")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		above, dir os.FileMode
		uid        int
		want       []string
	}{
		{0o755, 0o700, 65532, nil},
		{0o755, 0o750, 65532, nil},
		{0o755, 0o701, 65532, []string{"can enter"}},
		{0o755, 0o757, 65532, []string{"can enter"}},
		{0o700, 0o777, 65532, nil},
		{0o755, 0o700, 0, []string{"belongs to root"}},
		{0o755, 0o755, 0, []string{"can enter", "belongs to root"}},
	} {
		if err := errors.Join(os.Chmod(top, c.above), os.Chmod(dir, c.dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, c.uid, -1); err != nil {
			t.Fatalf("run the tests as root, who alone gives files away: %v", err)
		}
		got := (&Outbox{Path: dir}).Exposed()
		if len(got) != len(c.want) {
			t.Errorf("%v in %v of %d: %v", c.dir, c.above, c.uid, got)
			continue
		}
		for i, p := range got {
			if p.Severity != Warning || !strings.Contains(p.Text, c.want[i]) || !strings.Contains(p.Remedy, dir) {
				t.Errorf("%v in %v of %d: %v", c.dir, c.above, c.uid, p)
			}
		}
	}
	if got := (&Outbox{Path: filepath.Join(top, "none")}).Exposed(); got != nil {
		t.Errorf("a directory that does not exist: %v", got)
	}
}

// TestOldTLS: versions below 1.2 are named, wherever they are allowed.
func TestOldTLS(t *testing.T) {
	const web = "[[destination]]\nname = 'd'\ntype = 'http'\nurl = 'https://a.example.org'\n[destination.tls]\nversions = "
	for versions, want := range map[string]bool{"['tlsv1.2', 'tlsv1.3']": false, "['tlsv1.3']": false, "['tlsv1.1', 'tlsv1.2']": true, "['tlsv1', 'tlsv1.1']": true} {
		got := warnings(t, minimal+web+versions)
		if found := len(got) == 1 && strings.HasPrefix(got[0], "destination[1].tls.versions: allows a version below TLS 1.2"); found != want || !want && len(got) > 0 {
			t.Errorf("%s: %q", versions, got)
		}
	}
}
