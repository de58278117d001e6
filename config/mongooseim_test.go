package config

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const wholeFile = "testdata/mongooseim/mongooseim.toml"

// lines is the problems as `check` prints them.
func lines(problems []Problem) string {
	var b strings.Builder
	for _, p := range problems {
		b.WriteString(p.String() + "\n")
	}
	return b.String()
}

// A whole MongooseIM file is accepted, and what its values mean here is said.
func TestWholeMongooseIMFile(t *testing.T) {
	c, problems := loadAnywhere(wholeFile)
	golden := strings.TrimSuffix(wholeFile, ".toml") + ".txt"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(lines(problems)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	notes, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(notes), lines(problems)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if c == nil {
		t.Fatal("the file is refused")
	}

	plain := PoolOptions{Scope: "global", Workers: 10, Strategy: "best_worker", CallTimeout: 5 * time.Second}
	with := func(change func(*PoolOptions)) PoolOptions {
		p := plain
		change(&p)
		return p
	}
	usual := Choice{Format: FormatMongooseIM, ContentType: "application/json", TooLarge: "dead_letter"}
	wantModules := Modules{
		Follow: "6.8",
		SNS: &SNS{
			PresenceUpdatesTopic: "user_presence_updated", PMMessagesTopic: "user_message_sent", MUCMessagesTopic: "user_messagegroup_sent",
			Host: "eu-west-1.amazonaws.com", Region: "eu-west-1", AccessKeyID: "AKIAIOSFODNN7EXAMPLE",
			SecretAccessKey: "sns-secret", AccountID: "123456789012",
			PoolSize: 50, PublishRetryCount: 1, PublishRetryTime: 20 * time.Millisecond, Linger: 50 * time.Millisecond,
			Choice: usual,
		},
		HTTP: &HTTP{Handlers: []HTTPHandler{
			{PoolName: "web.Hooks", Path: "notifications", Choice: usual},
			{PoolName: "web.Hooks", Path: "archive", Choice: usual},
		}},
		Rabbit: &Rabbit{
			Presence:   &Exchange{Name: "presence", Type: "topic", Declare: "active"},
			Chat:       &Exchange{Name: "chat_msg", Type: "topic", Durable: true, SentTopic: "sent", RecvTopic: "chat_msg_recv", Declare: "active"},
			GroupChat:  &Exchange{Name: "groupchat_msg", Type: "topic", SentTopic: "groupchat_msg_sent", RecvTopic: "groupchat_msg_recv", Declare: "active"},
			Unroutable: "drop", LongRoutingKey: "dead_letter",
			Choice: usual,
		},
		Push: &Push{
			Backend: "mnesia", Plugin: "enhanced", VirtualPubsubHosts: []string{"pubsub.@HOST@", "push.example.org"},
			Content: "body", MaxAge: time.Hour, MaxRegistrations: 64,
			WPool:      PoolOptions{Workers: 200, Strategy: "random_worker", CallTimeout: 5 * time.Second},
			IQDiscType: "queues", IQDiscWorkers: 10,
		},
		MongoosePush: &MongoosePush{PoolName: "mongoose_push_http", APIVersion: "v3", MaxHTTPConnections: 100},
	}
	if diff := cmp.Diff(wantModules, c.Pusher); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	wantPools := Pools{
		HTTP: map[string]HTTPPool{
			"Auth": {PoolOptions: with(func(p *PoolOptions) { p.Workers = 5 }), Host: "http://localhost:8001", PathPrefix: "/", RequestTimeout: 2 * time.Second},
			"web.Hooks": {
				PoolOptions: with(func(p *PoolOptions) { p.Workers, p.Strategy = 50, "available_worker" }),
				Host:        "https://hooks.example.org", PathPrefix: "/webservice", RequestTimeout: 3 * time.Second,
			},
			"mongoose_push_http": {
				PoolOptions: with(func(p *PoolOptions) { p.Workers = 50 }),
				Host:        "https://localhost:8443", PathPrefix: "/", RequestTimeout: 2 * time.Second, TLS: &TLS{VerifyMode: "none"},
			},
		},
		Rabbit: &RabbitPool{
			PoolOptions: with(func(p *PoolOptions) { p.Scope, p.Workers, p.MaxWorkerQueueLen = "host_type", 20, 100 }),
			Host:        "rabbit.example.org", Port: 5672, Username: "mongoose", Password: "rabbit-secret", VirtualHost: "/xmpp",
			ReconnectAttempts: 3, ReconnectDelay: 500 * time.Millisecond,
			Persistent: true, Mandatory: true, Window: 256, Settle: time.Minute,
			TLS: &TLS{VerifyMode: "peer", Versions: []string{"tlsv1.2", "tlsv1.3"}}, SASL: "plain", Heartbeat: 10 * time.Second, ConnectionName: "eventpusher",
		},
		RDBMS: &RDBMSPool{
			PoolOptions: with(func(p *PoolOptions) { p.Workers = 5 }),
			Driver:      "pgsql", Host: "localhost", Port: 5432, Database: "ejabberd", Username: "ejabberd", Password: "rdbms-secret",
			QueryTimeout: 5 * time.Second,
			TLS:          &TLS{VerifyMode: "peer", CACertFile: "testdata/mongooseim/priv/ssl/cacert.pem", DisableSNI: true},
		},
	}
	if diff := cmp.Diff(wantPools, c.Pools); diff != "" {
		t.Errorf("pools (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"example.org", "chat.example.net"}, c.General.Hosts); diff != "" {
		t.Errorf("hosts are not prepared (-want +got):\n%s", diff)
	}
}

// Values that mean something else here than in MongooseIM, one by one.
func TestMeanings(t *testing.T) {
	const (
		start   = "[component]\nname = 'events.example.org'\nsecret = 's'\n[general]\nhosts = ['example.org']\n"
		sns     = "[modules.mod_event_pusher.sns]\npm_messages_topic = 'pm'\naccess_key_id = 'a'\nsecret_access_key = 's'\naccount_id = '1'\n"
		hook    = "[[modules.mod_event_pusher.http.handlers]]\npath = '/in'\n[outgoing_pools.http.http_pool.connection]\n"
		rmq     = "[modules.mod_event_pusher.rabbit.presence_exchange]\n[outgoing_pools.rabbit.event_pusher.connection]\n"
		durable = "[modules.mod_event_pusher.rabbit.presence_exchange]\ndurable = true\n[outgoing_pools.rabbit.event_pusher.connection]\n"
	)
	for _, tt := range []struct {
		name, file string
		want       string // one of the lines has to contain this; empty: there are no lines
	}{
		{"sns, regions agree", sns + "sns_host = 'sns.eu-west-1.amazonaws.com'\nregion = 'eu-west-1'", ""},
		{"sns, region differs", sns + "sns_host = 'https://sns.eu-west-1.amazonaws.com/'\nregion = 'eu-central-1'", `note: modules.mod_event_pusher.sns.region: requests are signed for "eu-central-1"; MongooseIM takes the region out of sns_host and would sign for "eu-west-1"`},
		{"sns, no region in host", sns + "sns_host = 'localhost:4566'\nregion = 'us-east-1'", ""},
		{"sns, no topic", strings.Replace(sns, "pm_messages_topic = 'pm'\n", "", 1) + "sns_host = 'localhost'\nregion = 'us-east-1'", "warning: modules.mod_event_pusher.sns: no topic is given"},
		{"sns, rooms of a host", sns + "sns_host = 'localhost'\nregion = 'us-east-1'\nmuc_host = 'conference.@HOST@'", ""},
		{"sns, host as room service", sns + "sns_host = 'localhost'\nregion = 'us-east-1'\nmuc_host = 'Example.org'", "warning: modules.mod_event_pusher.sns.muc_host"},
		{"http, prefix ends in a slash", hook + "host = 'http://localhost'\npath_prefix = '/hooks/'", ""},
		{"http, join differs", hook + "host = 'http://localhost'\npath_prefix = '/hooks'", "note: modules.mod_event_pusher.http.handlers[1].path: is joined to the pool's path_prefix with exactly one slash; MongooseIM puts none between them\n"},
		{"https without tls", hook + "host = 'https://localhost'", "note: outgoing_pools.http.http_pool: https without a tls section"},
		{"https with tls", hook + "host = 'https://localhost'\ntls.verify_mode = 'peer'", ""},
		{"timeout 0", hook + "host = 'http://localhost'\nrequest_timeout = 0", "warning: outgoing_pools.http.http_pool.connection.request_timeout: is 0"},
		{"verification that may fail", hook + "host = 'https://localhost'\ntls.disconnect_on_failure = false", "warning: outgoing_pools.http.http_pool.connection.tls.disconnect_on_failure"},
		{"rabbit, defaults", rmq, "note: modules.mod_event_pusher.rabbit.presence_exchange: messages are persistent, but the exchange and its bindings end"},
		{"rabbit, two that do not last", rmq + "[modules.mod_event_pusher.rabbit.chat_msg_exchange]", "note: modules.mod_event_pusher.rabbit.chat_msg_exchange, modules.mod_event_pusher.rabbit.presence_exchange: messages are persistent"},
		{"rabbit, one that does not last", durable + "[modules.mod_event_pusher.rabbit.chat_msg_exchange]", "note: modules.mod_event_pusher.rabbit.chat_msg_exchange: messages are persistent"},
		{"rabbit, durable", durable, ""},
		{"rabbit, nothing lasts", rmq + "persistent = false", ""},
		{"rabbit, returns lead to nothing", durable + "mandatory = false\n[modules.mod_event_pusher.rabbit]\nunroutable = 'dead_letter'", `warning: modules.mod_event_pusher.rabbit.unroutable: "dead_letter" has no effect`},
		{"rabbit, returns count", durable + "[modules.mod_event_pusher.rabbit]\nunroutable = 'dead_letter'", ""},
		{"rabbit, tls on the plain port", rmq + "tls.verify_mode = 'none'", "warning: outgoing_pools.rabbit.event_pusher.connection.tls: tls does not change the port"},
		{"rabbit, tls on its port", durable + "port = 5671\ntls.verify_mode = 'selfsigned_peer'", ""},
		{"rabbit, no exchange", "[modules.mod_event_pusher.rabbit]", "note: modules.mod_event_pusher.rabbit: no exchange is configured"},
		{"rabbit, same exchange twice alike", durable + "[modules.mod_event_pusher.rabbit.chat_msg_exchange]\nname = 'presence'\ndurable = true", ""},
		{"rabbit, workers", durable + "[outgoing_pools.rabbit.event_pusher]\nworkers = 3", "note: outgoing_pools.rabbit.event_pusher.workers: 2 channels are used at most"},
		{"rabbit, few workers", durable + "[outgoing_pools.rabbit.event_pusher]\nworkers = 2", ""},
		{"sns, pool_size", sns + "sns_host = 'localhost'\nregion = 'us-east-1'\npool_size = 17", "note: modules.mod_event_pusher.sns.pool_size: 16 calls at once are made at most"},
		{"sns, small pool_size", sns + "sns_host = 'localhost'\nregion = 'us-east-1'\npool_size = 16", ""},
		{"no backend", "", "warning: modules.mod_event_pusher: no destination is configured"},
		{"push, mysql", "[modules.mod_event_pusher.push]\nbackend = 'rdbms'\n[outgoing_pools.rdbms.default.connection]\ndriver = 'mysql'\nhost = 'h'\ndatabase = 'd'\nusername = 'u'\npassword = 'p'", "warning: outgoing_pools.rdbms.default.connection.driver"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, problems := Parse([]byte(start+tt.file), nil, "")
			if c == nil {
				t.Fatalf("refused:\n%s", lines(problems))
			}
			if tt.want == "" && len(problems) > 0 || !strings.Contains(lines(problems), tt.want) {
				t.Errorf("got:\n%swant: %q", lines(problems), tt.want)
			}
		})
	}
}
