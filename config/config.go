// Package config reads config.toml, the environment and secret files into typed
// values, and says what is wrong with them before anything starts.
//
// [modules.mod_event_pusher], [modules.mod_push_service_mongoosepush] and
// [outgoing_pools] mean what they mean in MongooseIM's own file; everything else
// is eventpusher's.
package config

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"eventpusher/internal/jid"
)

// Config is the whole configuration, validated, with defaults filled in.
type Config struct {
	Component    Component
	General      General
	Pusher       Modules
	Destinations []Destination
	AppServer    AppServer
	Pools        Pools
	Filters      []Filter
	Outbox       Outbox
	Admin        Admin
	Log          Log
}

// Component is [component]: the link to the XMPP server (XEP-0114).
type Component struct {
	Address string // host:port of the server's component listener; default localhost:5347
	Name    string // the component's domain, e.g. events.example.org; required
	Secret  Secret // shared secret of the handshake; required, or secret_file
	TLS     *TLS   // direct TLS when present; XEP-0114 knows no STARTTLS

	Forwarders []string // domains whose wrapped stanzas are unwrapped; default General.Hosts and MUCHosts
	MUCHosts   []string // conference domains; default conference. and muc. before each host
	Feeds      []string // feeds to accept, or feed:class; empty: the best one heard is the authority
	FeedToken  string   // "optional", or "required": modules of the event-feed must repeat tokens

	MaxStanzaSize    Size          // default 4 MiB, at least 64 KiB
	MaxDepth         int           // default 1000
	HandshakeTimeout time.Duration // default 10 s
	PingInterval     time.Duration // silence before a whitespace and a XEP-0199 ping; default 30 s
	PingTimeout      time.Duration // how long the answer may take; default 30 s
	ReconnectMin     time.Duration // first pause; default 500 ms
	ReconnectMax     time.Duration // longest pause; default 5 s
}

// Served returns the served domains as jid.NewDomains takes them: no wildcard stands for the component or
// for the conference domains.
func (c *Config) Served() []string {
	return jid.Except(c.General.Hosts, append(slices.Clone(c.Component.MUCHosts), c.Component.Name)...)
}

// General is the part of [general] that means something here.
type General struct {
	Hosts []string // served XMPP domains, at least one of them without a wildcard; required
}

// Modules is [modules.mod_event_pusher] and its companion.
type Modules struct {
	Follow       string // the MongooseIM whose events are made: 6.8 (default) or 6.9
	SNS          *SNS
	HTTP         *HTTP
	Rabbit       *Rabbit
	Push         *Push
	MongoosePush *MongoosePush
}

// SNS is [modules.mod_event_pusher.sns] (mod_event_pusher_sns.erl).
type SNS struct {
	PresenceUpdatesTopic string // empty: not published
	PMMessagesTopic      string
	MUCMessagesTopic     string
	Host                 string // sns_host: bare host (https) or URL; empty: Amazon's for the region
	Region               string
	AccessKeyID          string // empty: the SDK looks for credentials
	SecretAccessKey      Secret
	SessionToken         Secret // of temporary credentials
	RoleARN              string // role to assume with the credentials
	ExternalID           string // what the role's owner asks for beside
	AccountID            string
	MUCHost              string            // muc_host: only rooms of this host feed the MUC topic; empty: every groupchat; @HOST@ stands for a served host
	PoolSize             int               // parallel calls, at most MaxSNSCalls; default 100
	PublishRetryCount    int               // default 2
	PublishRetryTime     time.Duration     // default 50 ms
	MessageStructureJSON bool              // message_structure_json: ask SNS to read the message as JSON per protocol, as MongooseIM does; default false
	UserGUID             string            // an expression, in place of the bare JIDs in MongooseIM's payload; it sees each user as event.user
	MessageAttributes    map[string]string // name to expression
	EventAttributes      bool              // sort, kind, type and direction of the event are message attributes
	Subject              string            // an expression; empty: none
	Linger               time.Duration     // how long a message waits for others to share its call; default 50 ms
	Topic                string            // of a [[destination]]: one for all events, an ARN, or a name in Region and AccountID
	Choice
}

// HTTP is [modules.mod_event_pusher.http] (mod_event_pusher_http.erl).
type HTTP struct {
	Handlers []HTTPHandler
}

// HTTPHandler is one of its handlers, a backend of its own.
type HTTPHandler struct {
	Name     string // default http:POOL, with a path http:POOL/ and the start of its hash
	PoolName string // default http_pool
	Path     Secret // default ""; without leading slashes; who knows it can often post
	Choice
}

// Rabbit is [modules.mod_event_pusher.rabbit]; a section that is nil is inactive.
type Rabbit struct {
	Presence  *Exchange // no topics
	Chat      *Exchange
	GroupChat *Exchange
	All       *Exchange // of a [[destination]]: one for all events; the others are nil
	// Unroutable is what becomes of a message that no queue takes: drop (default;
	// counted), retry or dead_letter. It takes Mandatory and ConfirmsEnabled.
	Unroutable string
	// RoutingKey is an expression; empty: MongooseIM's, or that of All. LongRoutingKey says what
	// becomes of an event whose key has more than 255 bytes: dead_letter (default) or cut.
	RoutingKey     string
	LongRoutingKey string
	EventHeaders   bool          // sort, kind, type and direction of the event and its metadata are headers, the sort is the type
	Expiration     time.Duration // after which the broker drops a message; 0: never; whole milliseconds
	Choice
}

// Exchange is one of its exchanges.
type Exchange struct {
	Name      string
	Type      string // default topic
	Durable   bool   // default false
	SentTopic string
	RecvTopic string
	// Declare is what is done about an exchange before it is used: active (default: it is
	// declared unless it is there), passive (it has to be there) or none (nothing is asked).
	Declare           string
	AlternateExchange string // declared with it; empty: whatever is there
	AutoDelete        bool   // declared with it
}

// Push is [modules.mod_event_pusher.push].
type Push struct {
	Backend            string     // mnesia (means the embedded store), rdbms, nats
	Plugin             string     // defaults, enhanced or hints
	Rules              []PushRule // of MongooseIM 6.9, in place of Plugin; nil: none
	VirtualPubsubHosts []string
	Content            string        // body (default), sender or none: how much of a message leaves
	MaxAge             time.Duration // of a message that is still worth a notification; default 1 h
	MaxRegistrations   int           // of one user; default 64
	When               string        // an expression; empty: all; about events that would notify somebody
	WPool              PoolOptions
	IQDiscType         string // no effect here, as IQDiscWorkers
	IQDiscWorkers      int    // 0: unset
}

// PushRule is one of [[modules.mod_event_pusher.push.rules]].
type PushRule struct {
	Conditions []PushCondition // one of them has to hold; nil: the rule is for all events
	Action     string          // push or skip
	Content    string          // of push: message or jingle
}

// PushCondition holds if all of it does. What is empty holds of every event.
type PushCondition struct {
	Event       string // msg or unack_msg
	Type        string // chat or groupchat
	Body        string // absent, empty or non_empty
	Hint        string // no_store or store (XEP-0334)
	Jingle      *bool  // whether there is a step of a call (XEP-0353)
	UserStatus  string // online or offline
	ClientState string // active or inactive (XEP-0352); no feed tells, so it never holds
}

// MongoosePush is [modules.mod_push_service_mongoosepush].
type MongoosePush struct {
	PoolName           string
	APIVersion         string // v2 or v3
	MaxHTTPConnections int
}

// PoolOptions are the options that all pools share.
type PoolOptions struct {
	Scope             string
	Workers           int // calls at once; RabbitMQ: channels, at most MaxRabbitChannels
	Strategy          string
	CallTimeout       time.Duration
	MaxWorkerQueueLen int // 0: unset
}

// Pools is [outgoing_pools].
type Pools struct {
	HTTP   map[string]HTTPPool // by tag, case kept
	Rabbit *RabbitPool         // tag event_pusher
	RDBMS  *RDBMSPool          // tag default
}

// HTTPPool is [outgoing_pools.http.TAG].
type HTTPPool struct {
	PoolOptions
	Host           string        // scheme://host[:port], without path or final slash
	PathPrefix     string        // default /
	RequestTimeout time.Duration // default 2 s
	TLS            *TLS
}

// RabbitPool is [outgoing_pools.rabbit.event_pusher].
type RabbitPool struct {
	PoolOptions
	Host              string // default localhost
	Port              int    // default 5672, also with tls
	Username          string // default guest
	Password          Secret // default guest
	VirtualHost       string // default /
	ConfirmsEnabled   bool   // default true here; MongooseIM's default false voids the delivery contract
	ReconnectAttempts int    // accepted; reconnecting never gives up here
	ReconnectDelay    time.Duration
	Persistent        bool // persistent: delivery mode 2; default true
	Mandatory         bool // mandatory: unroutable messages come back; default true
	Window            int  // window: unconfirmed messages at most; default 256
	// Settle is how long an exchange that had to be created may have no bindings:
	// meanwhile what no queue takes is tried again. Default 60 s; 0: not at all.
	Settle time.Duration
	TLS    *TLS

	Addresses      []string      // host:port of the nodes of a cluster, tried in this order; nil: Host and Port
	SASL           string        // plain (default: Username and Password) or external (the client certificate)
	Heartbeat      time.Duration // silence after which both ask whether the other is there; default 10 s, at least 1 s
	ConnectionName string        // what the broker shows; default eventpusher
}

// RDBMSPool is [outgoing_pools.rdbms.default].
type RDBMSPool struct {
	PoolOptions
	Driver       string
	Host         string
	Port         int
	Database     string
	Username     string
	Password     Secret
	QueryTimeout time.Duration
	TLS          *TLS
}

// TLS holds MongooseIM's client TLS options (just_tls). File names are those of the
// configuration, joined to its directory where they are relative.
type TLS struct {
	VerifyMode  string // peer (default), selfsigned_peer or none
	CertFile    string
	KeyFile     string
	KeyPassword Secret
	CACertFile  string
	Ciphers     string
	Versions    []string
	CRLFiles    []string
	DisableSNI  bool
	ServerName  string
}

// Filter is one [[filter]].
type Filter struct {
	Name     string
	Type     string // expression (default), or one that the program adds
	Priority int    // default 10, below 50
	OnError  string // dead_letter (default), keep or drop
	Override bool   // may replace reserved keys

	// Of type expression.
	Keep     string            // expression; empty keeps everything
	Metadata map[string]string // key to expression

	Settings Settings // of a type that the program adds, else nil
}

// Outbox is [outbox].
type Outbox struct {
	Engine          string        // embedded (default) or nats
	Path            string        // directory; default outbox
	MaxSize         Size          // default 10 GiB
	MaxAge          time.Duration // default 72 h
	ShutdownTimeout time.Duration // default 10 s
	OnDamage        string        // stop (default) or skip
	NATS            NATS
}

// NATS is [outbox.nats].
type NATS struct {
	NATSServers
	Stream     string        // prefix of all streams, buckets and subjects; default EVENTPUSHER
	Replicas   int           // of each stream; default 1
	Partitions int           // fixed once the streams exist; default 16
	Takeover   time.Duration // silence after which another instance acquires the link; default 15 s
}

// NATSServers says which NATS servers to use, and as whom.
type NATSServers struct {
	URL             string // of one or more servers, separated by commas; default nats://localhost:4222
	CredentialsFile string // of a NATS user; it excludes Username
	Username        string // with Password
	Password        Secret
	TLS             *TLS
}

// Admin is [admin].
type Admin struct {
	Listen string // host:port; empty: no listener
	Token  Secret // bearer token; required off loopback
}

// Log is [log].
type Log struct {
	Level  slog.Level // debug, info (default), warn, error
	Levels []string   // PACKAGE=LEVEL each
	Format string     // text (default) or json
}

// Packages returns Levels by the package, such as component/trust, that they are for.
func (l *Log) Packages() map[string]slog.Level {
	all := make(map[string]slog.Level, len(l.Levels))
	for _, one := range l.Levels {
		name, text, _ := strings.Cut(one, "=")
		var level slog.Level
		_ = level.UnmarshalText([]byte(text)) // it was checked
		all[name] = level
	}
	return all
}
