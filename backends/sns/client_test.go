package sns_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/sns"
	"eventpusher/config"
)

// alone keeps the SDK away from what this machine has: its files, its variables, its role.
func alone(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} {
		t.Setenv(name, filepath.Join(t.TempDir(), "none"))
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// destination is a [[destination]] of type sns whose endpoint is host.
func destination(host string) config.SNS {
	return config.SNS{Topic: arn + "events", Region: region, Host: host}
}

func open(t *testing.T, c config.SNS, log *slog.Logger) *sns.Backend {
	t.Helper()
	b, err := sns.New(sns.Options{Name: "events", Section: c, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// signatures is a service that takes everything and remembers how it was signed.
type signatures struct {
	mu   sync.Mutex
	seen []http.Header
	url  string
}

func startSignatures(t *testing.T) *signatures {
	s := &signatures{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		form, _ := url.ParseQuery(string(body))
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seen = append(s.seen, req.Header.Clone())
		switch {
		case form.Get("Action") != "AssumeRole":
			io.WriteString(w, `<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>`)
		case form.Get("ExternalId") == "wrong":
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>`)
		default:
			io.WriteString(w, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>`+
				`<SessionToken>role-token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`)
		}
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// last returns access key and token of the latest request.
func (s *signatures) last() (key, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.seen[len(s.seen)-1]
	_, key, _ = strings.Cut(h.Get("Authorization"), "Credential=")
	key, _, _ = strings.Cut(key, "/")
	return key, h.Get("X-Amz-Security-Token")
}

func TestCredentials(t *testing.T) {
	const role = "arn:aws:iam::123456789012:role/eventpusher"
	for _, tc := range []struct {
		name       string
		change     func(t *testing.T, c *config.SNS)
		key, token string
	}{
		{"given", func(_ *testing.T, c *config.SNS) { c.AccessKeyID, c.SecretAccessKey = "AKIAGIVEN", "s" }, "AKIAGIVEN", ""},
		{"given with a token", func(_ *testing.T, c *config.SNS) {
			c.AccessKeyID, c.SecretAccessKey, c.SessionToken = "ASIAGIVEN", "s", "token"
		}, "ASIAGIVEN", "token"},
		{"of the environment", func(t *testing.T, _ *config.SNS) {
			t.Setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
		}, "AKIAENV", ""},
		{"of a file", func(t *testing.T, c *config.SNS) {
			file := filepath.Join(t.TempDir(), "credentials")
			if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = s\nregion = "+region+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
			c.Region = ""
		}, "AKIAFILE", ""},
		{"of a role", func(_ *testing.T, c *config.SNS) {
			c.AccessKeyID, c.SecretAccessKey, c.RoleARN = "AKIAGIVEN", "s", role
		}, "ASIAROLE", "role-token"},
		{"of a role, with what the environment has", func(t *testing.T, c *config.SNS) {
			t.Setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			c.RoleARN, c.ExternalID = role, "id"
		}, "ASIAROLE", "role-token"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			alone(t)
			s := startSignatures(t)
			t.Setenv("AWS_ENDPOINT_URL_STS", s.url)
			c := destination(s.url)
			tc.change(t, &c)
			if err := open(t, c, slog.New(slog.DiscardHandler)).Publish(t.Context(), backendtest.Messages(0, 1))[0]; err != nil {
				t.Fatal(err)
			}
			if key, token := s.last(); key != tc.key || token != tc.token {
				t.Errorf("signed with %s and %q, want %s and %q", key, token, tc.key, tc.token)
			}
		})
	}
}

// TestWithoutCredentials: what is missing is said, with the remedy.
func TestWithoutCredentials(t *testing.T) {
	alone(t)
	s := startSignatures(t)
	t.Setenv("AWS_ENDPOINT_URL_STS", s.url)
	for _, tc := range []struct {
		name           string
		change         func(*config.SNS)
		reason, detail string
	}{
		{"none anywhere", func(*config.SNS) {}, "transient", "give this machine a role"},
		{"the role is refused", func(c *config.SNS) {
			c.AccessKeyID, c.SecretAccessKey, c.RoleARN, c.ExternalID = "AKIA", "hunter2", "arn:aws:iam::1:role/r", "wrong"
		}, "paused", "sts:AssumeRole"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := destination(s.url)
			tc.change(&c)
			b := open(t, c, slog.New(slog.DiscardHandler))
			err := b.Publish(t.Context(), backendtest.Messages(0, 1))[0]
			if backends.Reason(err) != tc.reason || !strings.Contains(err.Error(), tc.detail) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v (%q), want %q with %q", err, backends.Reason(err), tc.reason, tc.detail)
			}
			backendtest.WantFindings(t, b.Probe(t.Context()), []string{"hunter2"}, "FAIL "+tc.detail)
		})
	}
	// The remedy is about the credentials that were used.
	t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
	f := startFake(t)
	f.fail = func(url.Values) *failure { return &failure{status: 403, code: "InvalidClientTokenId"} }
	err := open(t, destination(f.server.URL), slog.New(slog.DiscardHandler)).Publish(t.Context(), backendtest.Messages(0, 1))[0]
	if backends.Reason(err) != "paused" || !strings.Contains(err.Error(), "that the AWS SDK has found") {
		t.Errorf("%v (%q)", err, backends.Reason(err))
	}
	c := destination("")
	c.Topic, c.Region, c.AccountID = "events", "", account
	if _, err := sns.New(sns.Options{Name: "events", Section: c, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "no region") {
		t.Errorf("without a region: %v", err)
	}
}

// TestLogOfSDK: what the SDK says of an answer is in our log, and nowhere else.
func TestLogOfSDK(t *testing.T) {
	alone(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", "yesterday")
		io.WriteString(w, `<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>`)
	}))
	defer server.Close()
	for name, keys := range map[string]bool{"given keys": true, "found keys": false} {
		stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		terminal := os.Stderr
		os.Stderr = stderr
		var said bytes.Buffer
		c := destination(server.URL)
		if keys {
			c.AccessKeyID, c.SecretAccessKey = accessKey, "hunter2"
		} else {
			t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
			t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
		}
		batch := backendtest.Messages(0, 1)
		err = open(t, c, slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))).Publish(t.Context(), batch)[0]
		os.Stderr = terminal
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		printed, err := os.ReadFile(stderr.Name())
		if err != nil || len(printed) > 0 {
			t.Errorf("%s: printed %q, %v", name, printed, err)
		}
		stderr.Close()
		if text := said.String(); !strings.Contains(text, "yesterday") || strings.Contains(text, "hunter2") || strings.Contains(text, batch[0].Body) {
			t.Errorf("%s: logged %s", name, text)
		}
	}
}

// TestProxy: requests go by the proxy of the environment, but not those to this machine.
func TestProxy(t *testing.T) {
	alone(t)
	var mu sync.Mutex
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, req.Method+" "+req.Host)
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("NO_PROXY", "")
	s := startSignatures(t)
	local := destination(s.url)
	local.AccessKeyID, local.SecretAccessKey = "AKIA", "s"
	if err := open(t, local, slog.New(slog.DiscardHandler)).Publish(t.Context(), backendtest.Messages(0, 1))[0]; err != nil {
		t.Error(err)
	}
	far := local
	far.Host = ""
	if err := open(t, far, slog.New(slog.DiscardHandler)).Publish(t.Context(), backendtest.Messages(0, 1))[0]; backends.Reason(err) != "transient" {
		t.Errorf("%v (%q)", err, backends.Reason(err))
	}
	mu.Lock()
	defer mu.Unlock()
	if want := "CONNECT sns." + region + ".amazonaws.com:443"; len(asked) != 1 || asked[0] != want {
		t.Errorf("the proxy was asked for %q, want %q", asked, want)
	}
}

// TestPartitions: ours are those of the SDK, for every region that it knows.
func TestPartitions(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go-v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(string(bytes.TrimSpace(out)), "internal", "endpoints", "awsrulesfn", "partitions.json"))
	if err != nil {
		t.Fatal(err)
	}
	var known struct {
		Partitions []struct {
			ID      string
			Regions map[string]any
		}
	}
	if err := json.Unmarshal(data, &known); err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, p := range known.Partitions {
		for name := range p.Regions {
			if strings.HasSuffix(name, "-global") {
				continue
			}
			compared++
			if got, want := sns.TopicARN(&config.SNS{Region: name, AccountID: account}, "t"), fmt.Sprintf("arn:%s:sns:%s:%s:t", p.ID, name, account); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	}
	if compared < 40 {
		t.Errorf("compared %d regions", compared)
	}
}
