package config

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The environment wins over the file, and creates sections that the file lacks.
func TestEnvironment(t *testing.T) {
	c := parsed(t, minimal+"[outgoing_pools.http.\"Web-Hooks\".connection]\nhost = 'http://file'\n",
		"PATH=/bin",
		"EVENTPUSHER_COMPONENT_SECRET=env-secret",
		"EVENTPUSHER_COMPONENT_ADDRESS=127.0.0.1:5999",
		"EVENTPUSHER_COMPONENT_MAX_DEPTH=7",
		"EVENTPUSHER_COMPONENT_MAX_STANZA_SIZE=65536",
		"EVENTPUSHER_COMPONENT_PING_INTERVAL=5s",
		"EVENTPUSHER_COMPONENT_FEEDS=direct, privilege,",
		"EVENTPUSHER_GENERAL_HOSTS=One.example,two.example",
		"EVENTPUSHER_OUTBOX_PATH=/var/lib/eventpusher",
		"EVENTPUSHER_OUTBOX_MAX_SIZE=1GiB",
		"EVENTPUSHER_ADMIN_TOKEN=env-token=with=equals",
		"EVENTPUSHER_LOG_LEVEL=debug",
		"EVENTPUSHER_LOG_FORMAT=",
		"EVENTPUSHER_MODULES_MOD_EVENT_PUSHER_RABBIT_PRESENCE_EXCHANGE_DURABLE=false",
		"EVENTPUSHER_MODULES_MOD_EVENT_PUSHER_SNS_SECRET_ACCESS_KEY=env-sns",
		"EVENTPUSHER_MODULES_MOD_EVENT_PUSHER_SNS_ACCESS_KEY_ID=id",
		"EVENTPUSHER_MODULES_MOD_EVENT_PUSHER_SNS_ACCOUNT_ID=000000000000",
		"EVENTPUSHER_MODULES_MOD_EVENT_PUSHER_SNS_SNS_HOST=http://localhost:4566",
		"EVENTPUSHER_MODULES_MOD_EVENT_PUSHER_SNS_REGION=us-east-1",
		"EVENTPUSHER_MODULES_MOD_EVENT_PUSHER_SNS_PUBLISH_RETRY_TIME_MS=0",
		"EVENTPUSHER_OUTGOING_POOLS_RABBIT_EVENT_PUSHER_CONNECTION_PASSWORD=env-rabbit",
		"EVENTPUSHER_OUTGOING_POOLS_RABBIT_EVENT_PUSHER_CONNECTION_RECONNECT_DELAY=10",
		"EVENTPUSHER_OUTGOING_POOLS_HTTP_WEB_HOOKS_CONNECTION_HOST=http://env",
	)
	got := map[string]any{
		"secret": c.Component.Secret.Reveal(), "address": c.Component.Address, "depth": c.Component.MaxDepth,
		"stanza": c.Component.MaxStanzaSize, "ping": c.Component.PingInterval, "feeds": c.Component.Feeds,
		"hosts": c.General.Hosts, "path": c.Outbox.Path, "size": c.Outbox.MaxSize, "token": c.Admin.Token.Reveal(),
		"level": c.Log.Level.String(), "format": c.Log.Format, "durable": c.Pusher.Rabbit.Presence.Durable,
		"sns": c.Pusher.SNS.SecretAccessKey.Reveal(), "account": c.Pusher.SNS.AccountID, "retry": c.Pusher.SNS.PublishRetryTime,
		"rabbit": c.Pools.Rabbit.Password.Reveal(), "delay": c.Pools.Rabbit.ReconnectDelay, "pool": c.Pools.HTTP["Web-Hooks"].Host,
	}
	want := map[string]any{
		"secret": "env-secret", "address": "127.0.0.1:5999", "depth": 7,
		"stanza": Size(65536), "ping": 5 * time.Second, "feeds": []string{"direct", "privilege"},
		"hosts": []string{"one.example", "two.example"}, "path": "/var/lib/eventpusher", "size": Size(1 << 30), "token": "env-token=with=equals",
		"level": "DEBUG", "format": "text", "durable": false,
		"sns": "env-sns", "account": "000000000000", "retry": time.Duration(0),
		"rabbit": "env-rabbit", "delay": 10 * time.Millisecond, "pool": "http://env",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

// A container can be configured by its environment alone.
func TestEnvironmentAlone(t *testing.T) {
	c, problems := Parse(nil, []string{
		"EVENTPUSHER_COMPONENT_NAME=events.example.org",
		"EVENTPUSHER_COMPONENT_SECRET=s",
		"EVENTPUSHER_GENERAL_HOSTS=example.org",
		"EVENTPUSHER_MODULES_MOD_EVENT_PUSHER_RABBIT_CHAT_MSG_EXCHANGE_NAME=chat",
		"EVENTPUSHER_MODULES_MOD_EVENT_PUSHER_RABBIT_CHAT_MSG_EXCHANGE_DURABLE=true",
		"EVENTPUSHER_OUTGOING_POOLS_RABBIT_EVENT_PUSHER_CONNECTION_HOST=localhost",
	}, "")
	if c == nil || len(problems) > 0 {
		t.Fatalf("problems:\n%s", lines(problems))
	}
	if got := c.Pusher.Rabbit.Chat; got.Name != "chat" || got.SentTopic != "chat_msg_sent" {
		t.Errorf("exchange %+v", got)
	}
}

func TestEnvironmentProblems(t *testing.T) {
	for _, tt := range []struct {
		name, file, env, want string
	}{
		{"misspelt", "", "EVENTPUSHER_COMPONENT_SECRETT=hunter2", "warning: EVENTPUSHER_COMPONENT_SECRETT: the environment variable matches no key; did you mean EVENTPUSHER_COMPONENT_SECRET?\n"},
		{"nothing like it", "", "EVENTPUSHER_X=1", "warning: EVENTPUSHER_X: the environment variable matches no key; remove it\n"},
		{"array of tables", "", "EVENTPUSHER_FILTER_1_NAME=x", "warning: EVENTPUSHER_FILTER_1_NAME: the environment variable matches no key; remove it\n"},
		{"not an integer", "", "EVENTPUSHER_COMPONENT_MAX_DEPTH=many", "error: component.max_depth: from EVENTPUSHER_COMPONENT_MAX_DEPTH: is not an integer; write digits only\n"},
		{"out of range", "", "EVENTPUSHER_COMPONENT_MAX_DEPTH=1", "error: component.max_depth: from EVENTPUSHER_COMPONENT_MAX_DEPTH: is 1; write 4 or more\n"},
		{"not a truth", "", "EVENTPUSHER_OUTGOING_POOLS_RABBIT_EVENT_PUSHER_CONNECTION_MANDATORY=yes", "error: outgoing_pools.rabbit.event_pusher.connection.mandatory: from EVENTPUSHER_OUTGOING_POOLS_RABBIT_EVENT_PUSHER_CONNECTION_MANDATORY: is neither true nor false; write one of them\n"},
		{"not a size", "", "EVENTPUSHER_OUTBOX_MAX_SIZE=big", "error: outbox.max_size: from EVENTPUSHER_OUTBOX_MAX_SIZE: is not a size; write a number of bytes, or one with a unit such as \"64KiB\", \"4MiB\" or \"10GiB\"\n"},
		{"set by Kubernetes", "", "EVENTPUSHER_PORT_5347_TCP_ADDR=10.0.0.1", ""},
		{"service of Kubernetes", "", "EVENTPUSHER_SERVICE_HOST=10.0.0.1", ""},
		{
			"two pools of one name", "[outgoing_pools.http]\na-b.connection.host = 'http://x'\na_b.connection.host = 'http://y'", "EVENTPUSHER_OUTGOING_POOLS_HTTP_A_B_WORKERS=3",
			"error: EVENTPUSHER_OUTGOING_POOLS_HTTP_A_B_WORKERS: names both outgoing_pools.http.a-b.workers and outgoing_pools.http.a_b.workers; set them in the file, or rename one\n" +
				"note: outgoing_pools.http.a-b, outgoing_pools.http.a_b: not used by any backend\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := Parse([]byte(minimal+tt.file), []string{tt.env}, "")
			if diff := cmp.Diff(tt.want, lines(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// No two keys share a variable.
func TestVariablesAreUnique(t *testing.T) {
	seen := make(map[string]string)
	for _, v := range variables(nil, new(Config).fields(nil), nil) {
		if other, taken := seen[v.name]; taken {
			t.Errorf("%s names %s and %s", v.name, other, v.path)
		}
		seen[v.name] = v.path.String()
	}
	for _, name := range []string{
		"EVENTPUSHER_COMPONENT_TLS_SERVER_NAME_INDICATION_HOST", "EVENTPUSHER_OUTBOX_NATS_TLS_PASSWORD_FILE",
		"EVENTPUSHER_OUTGOING_POOLS_RDBMS_DEFAULT_CONNECTION_PASSWORD",
	} {
		if seen[name] == "" {
			t.Errorf("%s is missing in %q", name, slices.Sorted(maps.Keys(seen)))
		}
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	for name, contents := range map[string]string{
		"plain": "from-file", "newline": "from-file\n", "crlf": "from-file\r\n",
		"empty": "\n", "long": strings.Repeat("x", 65<<10),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const (
		key      = "secret = \"hunter2-component\""
		fileEnv  = "EVENTPUSHER_COMPONENT_SECRET_FILE="
		valueEnv = "EVENTPUSHER_COMPONENT_SECRET="
	)
	for _, tt := range []struct {
		name, keys, env string
		want            string // the secret, or
		problem         string // what the error contains
	}{
		{"relative", `secret_file = "plain"`, "", "from-file", ""},
		{"absolute", `secret_file = "` + filepath.Join(dir, "plain") + `"`, "", "from-file", ""},
		{"newline", `secret_file = "newline"`, "", "from-file", ""},
		{"crlf", `secret_file = "crlf"`, "", "from-file", ""},
		{"by environment", ``, fileEnv + "plain", "from-file", ""},
		{"environment's file over the file's secret", key, fileEnv + "plain", "from-file", ""},
		{"environment's secret over the file's file", `secret_file = "missing"`, valueEnv + "from-env", "from-env", ""},
		{"both", key + "\nsecret_file = \"plain\"", "", "", "error: component.secret_file: is given beside component.secret; remove one of the two"},
		{"missing", `secret_file = "missing"`, "", "", "error: component.secret_file: cannot read " + filepath.Join(dir, "missing") + ": no such file or directory"},
		{"directory", `secret_file = "."`, "", "", "error: component.secret_file: cannot read " + dir},
		{"empty", `secret_file = "empty"`, "", "", "error: component.secret_file: " + filepath.Join(dir, "empty") + " is empty"},
		{"long", `secret_file = "long"`, "", "", "is longer than 65536 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, problems := Parse([]byte(strings.Replace(minimal, key, tt.keys, 1)), []string{tt.env}, dir)
			if tt.problem != "" {
				if c != nil || len(problems) != 1 || !strings.Contains(problems[0].String(), tt.problem) {
					t.Errorf("got:\n%swant one error: %s", lines(problems), tt.problem)
				}
				return
			}
			if c == nil || len(problems) > 0 {
				t.Fatalf("problems:\n%s", lines(problems))
			}
			if got := c.Component.Secret.Reveal(); got != tt.want {
				t.Errorf("secret %q, want %q", got, tt.want)
			}
		})
	}
}

// The path of a handler, often all that protects a webhook, can come from a file.
func TestPathFile(t *testing.T) {
	dir := t.TempDir()
	for name, contents := range map[string]string{"slack": "/services/T0/B0/hunter2\n", "same": "//services/T0/B0/hunter2", "empty": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const pool = "[outgoing_pools.http.http_pool.connection]\nhost = 'https://hooks.example.org'\ntls.verify_mode = 'peer'\n"
	handler := func(keys string) string { return "[[modules.mod_event_pusher.http.handlers]]\n" + keys + "\n" }
	for _, tt := range []struct{ name, handlers, want, problem string }{
		{"file", handler("path_file = 'slack'"), "services/T0/B0/hunter2", ""},
		{"key", handler("path = '//services'"), "services", ""},
		{"neither", handler(""), "", ""},
		{"both", handler("path = 'x'\npath_file = 'slack'"), "", "handlers[1].path_file: is given beside modules.mod_event_pusher.http.handlers[1].path;"},
		{"missing", handler("path_file = 'none'"), "", "handlers[1].path_file: cannot read "},
		{"missing beside a handler without path", handler("") + handler("path_file = 'none'"), "", "handlers[2].path_file: cannot read "},
		{"empty", handler("path_file = 'empty'"), "", "handlers[1].path_file: " + filepath.Join(dir, "empty") + " is empty"},
		{"the same twice", handler("path_file = 'slack'") + handler("path_file = 'same'"), "", "handlers[2]: is the same as an earlier handler"},
		{"the same but for slashes", handler("path = 'a'") + handler("path = '//a'"), "", "handlers[2]: is the same as an earlier handler"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, problems := Parse([]byte(minimal+pool+tt.handlers), nil, dir)
			if strings.Contains(lines(problems), "hunter2") {
				t.Errorf("the path is shown:\n%s", lines(problems))
			}
			if tt.problem != "" {
				if c != nil || len(problems) != 1 || !strings.Contains(problems[0].String(), tt.problem) {
					t.Errorf("got:\n%swant one error: %s", lines(problems), tt.problem)
				}
				return
			}
			if c == nil || len(problems) > 0 {
				t.Fatalf("problems:\n%s", lines(problems))
			}
			if got := c.Pusher.HTTP.Handlers[0].Path.Reveal(); got != tt.want {
				t.Errorf("path %q, want %q", got, tt.want)
			}
		})
	}
}

// Every secret has its twin.
func TestEverySecretHasATwin(t *testing.T) {
	var twins []string
	for _, v := range variables(nil, new(Config).fields(nil), nil) {
		if v.field.secret != nil {
			twins = append(twins, v.path.String())
		}
	}
	slices.Sort(twins)
	want := []string{
		"admin.token_file", "component.secret_file", "component.tls.password_file",
		"modules.mod_event_pusher.sns.secret_access_key_file", "modules.mod_event_pusher.sns.session_token_file", "outbox.nats.password_file", "outbox.nats.tls.password_file",
		"outgoing_pools.rabbit.event_pusher.connection.password_file", "outgoing_pools.rabbit.event_pusher.connection.tls.password_file",
		"outgoing_pools.rdbms.default.connection.password_file", "outgoing_pools.rdbms.default.connection.tls.password_file",
	}
	if diff := cmp.Diff(want, twins); diff != "" {
		t.Errorf("twins (-want +got):\n%s", diff)
	}
}
