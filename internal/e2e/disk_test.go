package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"eventpusher/internal/xmppserver"
)

// mount mounts a file system of its own at dir for the test, and skips the test
// where that is not allowed: the scripted disks of the packages below pusher
// prove the same.
func mount(t *testing.T, source, dir, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, dir, kind, flags, data); err != nil {
		t.Skipf("mount: %v; only the tests with a scripted disk say what happens", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// disk is a process with its world and an outbox whose disk the test spoils.
type disk struct {
	*world
	server          *xmppserver.Server
	session         *xmppserver.Session
	program, config string
	outbox          string
	p               *process
	sent            int
}

// onDisk prepares the program with its outbox in dir.
func onDisk(t *testing.T, program, dir string) *disk {
	t.Helper()
	server, w, config := prepareConfig(t, "reconnect_min = \"20ms\"\nreconnect_max = \"100ms\"", filepath.Join(dir, "outbox"))
	return &disk{world: w, server: server, program: program, config: config, outbox: filepath.Join(dir, "outbox")}
}

// run starts the program and waits until it is attached.
func (d *disk) run(t *testing.T) {
	t.Helper()
	d.p = run(t, d.program, d.config)
	d.watch(d.p)
	session, err := d.server.Accept(contextFor(t, limit))
	if err != nil {
		t.Fatal(err)
	}
	d.session = session
}

func (d *disk) send(t *testing.T, n int) {
	t.Helper()
	for range n {
		d.sent++
		if err := d.session.Send(numbered(0, d.sent)); err != nil {
			t.Fatal(err)
		}
	}
}

// everything waits until all that was sent is delivered, then stops the program.
func (d *disk) everything(t *testing.T) {
	t.Helper()
	await(t, "everything at all services", func() bool {
		for _, got := range d.received(t) {
			if len(got) < d.sent {
				return false
			}
		}
		return true
	})
	d.allOnce(t, d.sent)
	if code := d.p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// refused runs the program, which is to end by itself with an error.
func (d *disk) refused(t *testing.T, wants ...string) {
	t.Helper()
	cmd := exec.CommandContext(contextFor(t, limit), d.program, "run", "-config", d.config)
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit code %d:\n%s", cmd.ProcessState.ExitCode(), out)
	}
	for _, want := range append(wants, d.outbox) {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "goroutine ") {
		t.Errorf("it panicked:\n%s", out)
	}
}

// unready waits until the program says why it does not take events, which it
// survives.
func (d *disk) unready(t *testing.T, why string) {
	t.Helper()
	await(t, "the reason on /readyz: "+why, func() bool {
		status, body := d.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, why)
	})
	if status, _ := d.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
}

// lastSegment returns the newest file of the log.
func (d *disk) lastSegment(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.outbox, "segments", "*.seg"))
	if err != nil || len(files) == 0 {
		t.Fatalf("segments: %v, %v", files, err)
	}
	return slices.Max(files)
}

// TestOutboxDisk spoils the disk of the outbox in every way that an operator meets.
func TestOutboxDisk(t *testing.T) {
	program := build(t)

	t.Run("read-only at the start", func(t *testing.T) {
		dir := t.TempDir()
		d := onDisk(t, program, dir)
		d.sink.Refuse()
		d.run(t)
		d.send(t, 20)
		d.consumer.Wait(2 * d.sent)
		d.p.end(syscall.SIGKILL)
		mount(t, dir, dir, "", unix.MS_BIND, "")
		readOnly := func(flag uintptr) {
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flag, ""); err != nil {
				t.Fatal(err)
			}
		}
		readOnly(unix.MS_RDONLY)
		d.refused(t, "read-only file system")
		readOnly(0)
		d.sink.Accept()
		d.run(t)
		d.everything(t)
	})

	t.Run("a new one on a read-only disk", func(t *testing.T) {
		dir := t.TempDir()
		d := onDisk(t, program, dir)
		mount(t, "tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=1m")
		d.refused(t, "read-only file system")
	})

	t.Run("full", func(t *testing.T) {
		dir := t.TempDir()
		d := onDisk(t, program, dir)
		mount(t, "tmpfs", dir, "tmpfs", 0, "size=16m")
		d.run(t)
		d.send(t, 20)
		d.consumer.Wait(2 * d.sent)
		filler := filepath.Join(dir, "filler")
		fill(t, filler)
		d.send(t, 500)
		d.unready(t, "no space left on device")
		d.p.says("level=ERROR", "the outbox does not take events", "no space left on device")
		if got := d.metric(t, "eventpusher_outbox_failing"); got != "1" {
			t.Errorf("failing: %s", got)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		await(t, "readiness", d.ready)
		d.p.says("the outbox takes events again")
		if got := d.metric(t, "eventpusher_outbox_failing"); got != "0" {
			t.Errorf("failing: %s", got)
		}
		d.everything(t)
	})

	t.Run("becomes read-only", func(t *testing.T) {
		dir := t.TempDir()
		image := filepath.Join(t.TempDir(), "image")
		device := loopDevice(t, image)
		mountImage := func() { mount(t, device, dir, "ext4", 0, "errors=remount-ro") }
		mountImage()
		fault := filepath.Join("/sys/fs/ext4", filepath.Base(device), "trigger_fs_error")
		if _, err := os.Stat(fault); err != nil {
			t.Skipf("%v; only the tests with a scripted disk say what happens", err)
		}
		d := onDisk(t, program, dir)
		d.sink.Refuse()
		d.run(t)
		d.send(t, 20)
		d.consumer.Wait(2 * d.sent)
		if err := os.WriteFile(fault, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		d.send(t, 10)
		d.unready(t, "read-only file system")
		d.p.says("level=ERROR", "the outbox does not take events", "read-only file system")
		if code := d.p.end(syscall.SIGTERM); code != 1 {
			t.Errorf("exit code %d, want 1: what was not accepted is lost", code)
		}
		d.p.says("level=ERROR", "events are lost", "events=20") // sent and received each
		d.refused(t, "read-only file system")
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
		mountImage()
		d.sent -= 10
		d.sink.Accept()
		d.run(t)
		d.everything(t)
	})

	t.Run("truncated", func(t *testing.T) {
		d := onDisk(t, program, t.TempDir())
		d.sink.Refuse()
		d.run(t)
		for range 10 { // packs, one after the other
			d.send(t, 10)
			d.consumer.Wait(2 * d.sent)
		}
		d.sns.WaitMessages(pmTopic, d.sent)
		await(t, "the others' settlements", func() bool { return d.backend("sns").Delivered == uint64(d.sent) })
		d.p.end(syscall.SIGTERM)
		info, err := os.Stat(d.lastSegment(t))
		if err == nil {
			err = os.Truncate(d.lastSegment(t), info.Size()-5)
		}
		if err != nil {
			t.Fatal(err)
		}
		d.afterDamage(t, "unfinished record cut off", "hole in the log")
	})

	t.Run("flipped byte", func(t *testing.T) {
		d := onDisk(t, program, t.TempDir())
		d.sink.Refuse()
		d.run(t)
		for range 10 {
			d.send(t, 10)
			d.consumer.Wait(2 * d.sent)
		}
		d.sns.WaitMessages(pmTopic, d.sent)
		await(t, "the others' settlements", func() bool { return d.backend("sns").Delivered == uint64(d.sent) })
		d.p.end(syscall.SIGTERM)
		b, err := os.ReadFile(d.lastSegment(t))
		if err != nil {
			t.Fatal(err)
		}
		b[bytes.Index(b, []byte("<body>0 50</body>"))] ^= 1
		if err := os.WriteFile(d.lastSegment(t), b, 0o600); err != nil {
			t.Fatal(err)
		}
		d.afterDamage(t, "hole in the log")
	})
}

// afterDamage starts the program on a log with damage that only the HTTP receiver
// has still to get past: it stops there, says so and goes on for all others, until
// the operator accepts the loss, which is counted.
func (d *disk) afterDamage(t *testing.T, says ...string) {
	t.Helper()
	d.sink.Accept()
	d.run(t)
	for _, text := range says {
		d.p.says(text, "segments")
	}
	d.unready(t, `or accept the loss with on_damage = "skip" in [outbox]`)
	d.p.says("level=ERROR", "the events that wait for a backend cannot be read", "backend=http:http_pool")
	d.send(t, 10)
	d.consumer.Wait(2 * d.sent)
	d.sns.WaitMessages(pmTopic, d.sent)
	if s := d.backend("http"); s.Lost != 0 || s.Waiting == 0 {
		t.Errorf("something was passed over: %+v", s)
	}
	if code := d.p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}

	toml, err := os.ReadFile(d.config)
	if err == nil {
		err = os.WriteFile(d.config, append(toml, "on_damage = \"skip\"\n"...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.run(t)
	d.p.says("level=ERROR", "events cannot be read and are passed over", "backend=http:http_pool", "first=", "events=")
	await(t, "what can be read", func() bool { s := d.backend("http"); return s.Waiting+s.InFlight == 0 })
	s := d.backend("http")
	missing := 0
	got := d.received(t)["http"]
	for n := 1; n <= d.sent; n++ {
		if !got.has(0, n) {
			missing++
		}
	}
	// Of each message there is one event for HTTP among the two in the log.
	if s.Lost == 0 || missing == 0 || int(s.Lost) < missing || int(s.Lost) > 2*missing+2 {
		t.Errorf("%d events are counted as lost, %d are missing", s.Lost, missing)
	}
	if got := d.metric(t, fmt.Sprintf("eventpusher_events_unreadable_total{backend=%q}", s.Name)); got != fmt.Sprint(s.Lost) {
		t.Errorf("the metric says %s of %d", got, s.Lost)
	}
	if !d.ready() {
		t.Error("not ready")
	}
	if code := d.p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

// loopDevice makes an ext4 file system in a file and a device of it.
func loopDevice(t *testing.T, image string) string {
	t.Helper()
	f, err := os.Create(image)
	if err == nil {
		err = f.Truncate(64 << 20)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v %s; only the tests with a scripted disk say what happens", err, out)
	}
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		t.Skipf("losetup: %v; only the tests with a scripted disk say what happens", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", device).Run() })
	return device
}
