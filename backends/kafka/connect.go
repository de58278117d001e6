package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"eventpusher/config"
	"eventpusher/internal/tlsconfig"
)

const (
	dialTimeout = 5 * time.Second
	// answerTimeout is how much longer than its own timeout a request may take.
	answerTimeout = 5 * time.Second
)

// options are those of the library's client; timeout is that of a record. Records are idempotent and acknowledged by all
// in-sync replicas: the library's defaults.
func options(d *config.Destination, log *slog.Logger, timeout time.Duration) ([]kgo.Opt, error) {
	k := &d.Kafka
	if k.TLS != nil {
		host, _, _ := net.SplitHostPort(k.Brokers[0]) // config has looked at it
		if _, err := tlsconfig.Client(k.TLS, host); err != nil {
			return nil, err
		}
	}
	list := []kgo.Opt{
		kgo.SeedBrokers(k.Brokers...), kgo.ClientID("eventpusher"), kgo.Dialer(dialer(k.TLS)),
		kgo.WithLogger(logger{log.With("backend", d.Name)}),
		kgo.ProducerLinger(0), // a batch is complete when it is there
		kgo.RequestRetries(1), kgo.RequestTimeoutOverhead(answerTimeout),
		kgo.ProduceRequestTimeout(answerTimeout), kgo.RecordDeliveryTimeout(timeout),
		kgo.MetadataMinAge(500 * time.Millisecond), // a partition's new leader is soon found
		// A record whose fate is unknown fails as well. The pusher repeats it.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.DisableClientMetrics(),
	}
	user, password := k.Username, k.Password.Reveal()
	switch k.SASL {
	case "":
	case "plain":
		list = append(list, kgo.SASL(plain.Auth{User: user, Pass: password}.AsMechanism()))
	case "scram-sha-256":
		list = append(list, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism()))
	case "scram-sha-512":
		list = append(list, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()))
	default:
		return nil, fmt.Errorf("sasl %q is none of plain, scram-sha-256, scram-sha-512", k.SASL)
	}
	return list, kgo.ValidateOpts(list...)
}

// dialer connects to a broker, whose certificate has to bear the name that it is reached by.
func dialer(t *config.TLS) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		var nd net.Dialer
		conn, err := nd.DialContext(ctx, network, address)
		if err != nil || t == nil {
			return conn, err
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			conn.Close()
			return nil, err
		}
		c, err := tlsconfig.Client(t, host)
		if err != nil {
			conn.Close()
			return nil, err
		}
		secured := tls.Client(conn, c)
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("TLS with %s: %w", address, err)
		}
		return secured, nil
	}
}

// logger takes what the library says. What concerns events comes back as their errors, so
// only errors of the library itself are shown; its warnings at debug.
type logger struct{ log *slog.Logger }

// Level implements kgo.Logger.
func (l logger) Level() kgo.LogLevel {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelWarn
	}
	return kgo.LogLevelError
}

// Log implements kgo.Logger.
func (l logger) Log(level kgo.LogLevel, text string, pairs ...any) {
	to := slog.LevelDebug
	if level == kgo.LogLevelError {
		to = slog.LevelWarn
	}
	l.log.Log(context.Background(), to, "the Kafka client reports", append([]any{"report", text}, pairs...)...)
}
