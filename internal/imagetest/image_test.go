//go:build linux

package imagetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/internal/xmppserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	image   = "localhost/eventpusher:imagetest"
	version = "v0.0.0-imagetest"
	user    = "65532"
	// limit is how long a step that cannot fail otherwise may take.
	limit = 5 * time.Minute
)

func TestImage(t *testing.T) {
	runtime.LockOSThread() // see storage.start
	defer runtime.UnlockOSThread()
	s := newStorage(t)
	files := build(t, s)
	t.Run("binary", func(t *testing.T) { checkBinary(t, filepath.Join(files, "root", "eventpusher")) })
	t.Run("config", func(t *testing.T) { checkConfig(t, s.inspect(t, image)) })
	t.Run("files", func(t *testing.T) { checkFiles(t, s) })
	t.Run("version", func(t *testing.T) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		checkVersion(t, s)
	})
	t.Run("run", func(t *testing.T) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		checkRun(t, s)
	})
}

// build runs `make image` and returns the directory of the staged files.
func build(t *testing.T, s storage) string {
	t.Helper()
	module, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	// Below the build context and apart from what a person may be building.
	files := filepath.Join("dist", "imagetest-"+rand.Text())
	t.Cleanup(func() {
		if err := os.RemoveAll(filepath.Join(module, files)); err != nil {
			t.Error(err)
		}
		_ = os.Remove(filepath.Join(module, "dist")) // if nothing else is in it
	})
	cmd := exec.CommandContext(t.Context(), "make", "--no-print-directory", "image",
		"IMAGE_TOOL=buildah", "BUILDAH_FLAGS="+strings.Join(s.flags, " "),
		"IMAGE="+image, "IMAGE_VERSION="+version, "IMAGE_FILES="+files)
	cmd.Dir = module
	// An outer make that runs the tests is none of this one's business.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "MAKE") || strings.HasPrefix(kv, "MFLAGS") })
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if _, err := s.output("rmi", image); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(module, files)
}

// checkBinary proves that the binary needs nothing of the image.
func checkBinary(t *testing.T, path string) {
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary is not static: it has a segment %v", p.Type)
		}
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" || settings["GOOS"] != "linux" {
		t.Errorf("build settings: %v", settings)
	}
	// Linked in whole only if main imports it: there are no other roots on scratch.
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(raw, []byte("ISRG Root X1")) {
		t.Error("the root certificates of golang.org/x/crypto/x509roots/fallback are not in the binary")
	}
}

func checkConfig(t *testing.T, got imageConfig) {
	want := imageConfig{
		User:       user + ":" + user,
		WorkingDir: "/var/lib/eventpusher",
		Entrypoint: []string{"/eventpusher"},
		Cmd:        []string{"run", "-config", "/etc/eventpusher/config.toml"},
		Volumes:    map[string]struct{}{"/var/lib/eventpusher": {}},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "eventpusher",
			"org.opencontainers.image.description": "Publishes the events of any XMPP server to Amazon SNS, HTTP and RabbitMQ",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     version,
		},
		Healthcheck: struct{ Test []string }{[]string{"CMD", "/eventpusher", "health", "-config", "/etc/eventpusher/config.toml"}},
	}
	delete(got.Labels, "io.buildah.version")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("image configuration (-want +got):\n%s", diff)
	}
}

// checkFiles compares the whole content of the image.
func checkFiles(t *testing.T, s storage) {
	root := s.buildah(t, "mount", s.container(t, image))
	got := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		got[strings.TrimPrefix(path, root)] = fmt.Sprintf("%v %d:%d", info.Mode(), stat.Uid, stat.Gid)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"/eventpusher":                       "-rwxr-xr-x 0:0",
		"/usr":                               "drwxr-xr-x 0:0",
		"/usr/share":                         "drwxr-xr-x 0:0",
		"/usr/share/doc":                     "drwxr-xr-x 0:0",
		"/usr/share/doc/eventpusher":         "drwxr-xr-x 0:0",
		"/usr/share/doc/eventpusher/LICENSE": "-rw-r--r-- 0:0",
		"/usr/share/doc/eventpusher/NOTICE":  "-rw-r--r-- 0:0",
		"/etc":                               "drwxr-xr-x 0:0",
		"/etc/eventpusher":                   "drwxr-xr-x 0:0",
		"/var":                               "drwxr-xr-x 0:0",
		"/var/lib":                           "drwxr-xr-x 0:0",
		"/var/lib/eventpusher":               "drwxr-xr-x 65532:65532",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func checkVersion(t *testing.T, s storage) {
	p := s.start(t, s.container(t, image), nil, "/eventpusher", "version")
	if err := <-p.exited; err != nil {
		t.Fatalf("version: %v\n%s", err, p.output)
	}
	if got, want := p.output.String(), "eventpusher "+version+", "; !strings.HasPrefix(got, want) {
		t.Errorf("version prints %q, want %q first", got, want)
	}
}

// checkRun starts the image as it says itself, with a configuration mounted, and
// sends one message through it.
func checkRun(t *testing.T, s storage) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server, err := xmppserver.New(xmppserver.Options{Component: "events.example.org", Secret: "open sesame", Hosts: []string{"example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	posts := make(chan url.Values, 1)
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		select {
		case posts <- r.PostForm:
		default:
			t.Errorf("a second request: %v", r.PostForm)
		}
	}))
	defer sink.Close()
	// An address of its own makes a fixed port free: nothing else listens there.
	tail := make([]byte, 2)
	rand.Read(tail)
	admin := fmt.Sprintf("127.53.%d.%d:9090", tail[0], 1+tail[1]%254)
	config := filepath.Join(t.TempDir(), "config.toml")
	err = os.WriteFile(config, fmt.Appendf(nil, `
[component]
address = %q
name = "events.example.org"
secret = "open sesame"
[general]
hosts = ["example.org"]
[admin]
listen = %q
[[modules.mod_event_pusher.http.handlers]]
pool_name = "sink"
path = "/events"
[outgoing_pools.http.sink.connection]
host = %q
`, server.Addr(), admin, sink.URL), 0o644)
	if err != nil {
		t.Fatal(err)
	}

	says := s.inspect(t, image)
	container := s.container(t, image)
	mounts := []string{config + ":/etc/eventpusher/config.toml:ro"}
	p := s.start(t, container, mounts, slices.Concat(says.Entrypoint, says.Cmd)...)
	session := accept(ctx, t, server, p)

	pid, err := p.inner(says.Entrypoint[0])
	if err != nil {
		t.Fatal(err)
	}
	uids, gids, err := ids(pid)
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Repeat([]string{user}, 4); !slices.Equal(uids, want) || !slices.Equal(gids, want) {
		t.Errorf("it runs as user %v, group %v, want %s alone", uids, gids, user)
	}

	if err := session.Send(wrapped); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-posts:
		want := url.Values{"author": {"alice"}, "server": {"example.org"}, "receiver": {"bob"}, "message": {"Hello from the image"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the sink got (-want +got):\n%s", diff)
		}
	case err := <-p.exited:
		t.Fatalf("the container ended: %v\n%s", err, p.output)
	case <-ctx.Done():
		t.Fatalf("nothing arrived at the sink; the container says:\n%s", p.output)
	}

	// The connection is up, so the health check that the image declares passes.
	health := s.start(t, container, mounts, says.Healthcheck.Test[1:]...)
	if err := <-health.exited; err != nil {
		t.Errorf("health check: %v\n%s\nthe container says:\n%s", err, health.output, p.output)
	}

	checkMetrics(ctx, t, "http://"+admin+"/metrics")

	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		if err != nil {
			t.Errorf("exit after SIGTERM: %v\n%s", err, p.output)
		}
	case <-ctx.Done():
		t.Fatalf("still running after SIGTERM; it says:\n%s", p.output)
	}
	logged(t, p.output.String())
}

// checkMetrics compares the metrics of a process that has just delivered with the
// operator's page.
func checkMetrics(ctx context.Context, t *testing.T, url string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	exposed := 0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		// # TYPE name kind
		fields := strings.Fields(lines.Text())
		if len(fields) != 4 || fields[1] != "TYPE" || !strings.HasPrefix(fields[2], "eventpusher_") {
			continue
		}
		exposed++
		if !bytes.Contains(page, []byte("`"+fields[2]+"`")) {
			t.Errorf("docs/operations.md does not name the metric %s", fields[2])
		}
	}
	if exposed == 0 {
		t.Errorf("%s has no metric of ours", url)
	}
}

// wrapped is a chat message as ejabberd's mod_service_log hands it on.
const wrapped = `<message to='events.example.org' from='example.org' id='1'><forwarded xmlns='urn:xmpp:forward:0'>` +
	`<message xmlns='jabber:client' from='alice@example.org/phone' to='bob@example.org' type='chat' id='m1'>` +
	`<body>Hello from the image</body></message></forwarded></message>`

// accept waits for the component of p, or for its end.
func accept(ctx context.Context, t *testing.T, server *xmppserver.Server, p *process) *xmppserver.Session {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	accepted := make(chan *xmppserver.Session, 1)
	go func() {
		session, _ := server.Accept(ctx)
		accepted <- session
	}()
	select {
	case session := <-accepted:
		if session == nil {
			t.Fatalf("it did not connect; it says:\n%s", p.output)
		}
		return session
	case err := <-p.exited:
		cancel()
		<-accepted
		t.Fatalf("the container ended: %v\n%s", err, p.output)
	}
	return nil
}

// logged checks that the log is one and gives nothing away.
func logged(t *testing.T, log string) {
	if strings.Contains(log, "open sesame") || strings.Contains(log, "Hello from the image") {
		t.Errorf("the log shows a secret or a message:\n%s", log)
	}
	lines := bufio.NewScanner(strings.NewReader(log))
	for lines.Scan() {
		if strings.Contains(lines.Text(), "level=ERROR") {
			t.Errorf("the log has an error: %s", lines.Text())
		}
	}
}
