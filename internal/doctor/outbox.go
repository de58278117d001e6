package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"eventpusher/config"
	"eventpusher/internal/finding"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
)

const (
	subjectOutbox = "outbox"
	// leastFree is what the outbox needs to go on for a while.
	leastFree = 256 << 20
	// oldEvent is from when on waiting is worth a word.
	oldEvent = 5 * time.Minute
	// mostLetters bounds how many dead letters are counted; each is read whole.
	mostLetters = 1000
)

// Lister lists dead letters.
type Lister interface {
	List(outbox.LetterFilter) ([]outbox.DeadLetter, error)
}

// Letters opens the dead letters of an outbox that several instances share; the
// function that it returns ends that.
type Letters func(context.Context) (Lister, func() error, error)

// shared examines an outbox that may have instances on other machines.
func shared(ctx context.Context, cfg *config.Config, open Letters) []finding.Finding {
	list := []finding.Finding{
		finding.Okf("instance", "none runs on this machine"),
		finding.Warnf(subjectServer, "run doctor where an instance runs, it answers for itself", "not attached: another instance may be, and a name has one connection"),
	}
	letters, end, err := open(ctx)
	if err != nil {
		return append(list, finding.Failf(subjectOutbox, "start NATS, correct [outbox.nats], or start an instance for the first time", "%v", err))
	}
	defer end()
	kept := fmt.Sprintf("NATS keeps it under %s", cfg.Outbox.NATS.Stream)
	if s, ok := letters.(interface{ Server() string }); ok {
		kept += "; " + s.Server()
	}
	return append(list, finding.Okf(subjectOutbox, "%s", kept), deadLetters(letters))
}

// Waiting says what waits for the backends of a running instance, and for how long.
func Waiting(s pusher.Status, letters Lister) []finding.Finding {
	var list []finding.Finding
	for _, u := range s.Unconfigured {
		list = append(list, unconfigured(u.Name, u.Waiting))
	}
	for _, b := range s.Backends {
		text := fmt.Sprintf("%s to deliver, %d parked, breaker %s", events(b.Waiting+b.InFlight), b.Parked, b.State)
		switch age := time.Duration(b.OldestAge); {
		case b.State == pusher.Paused:
			list = append(list, finding.Failf(b.Name, "", "%s: %s", text, b.LastError))
		case b.State != pusher.Closed:
			list = append(list, finding.Warnf(b.Name, "it is tried on; what the service says is below", "%s: %s", text, b.LastError))
		case b.Parked > 0:
			if age > oldEvent {
				text += ", the oldest for " + short(age)
			}
			if b.LastError != "" {
				text += ": " + b.LastError
			}
			list = append(list, finding.Warnf(b.Name, "the parked ones are of conversations that keep failing while others may be delivered, and are tried on; what the service says is below", "%s", text))
		case age > oldEvent:
			list = append(list, finding.Warnf(b.Name, "the service does not keep up", "%s, the oldest for %s", text, short(age)))
		default:
			list = append(list, finding.Okf(b.Name, "%s", text))
		}
		if b.Shed > 0 || b.Lost > 0 {
			list = append(list, finding.Warnf(b.Name, "raise [outbox] max_size, and look at the disk", "%s given up because the outbox was full, %s that could not be read", events(int(b.Shed)), events(int(b.Lost))))
		}
	}
	return append(list, deadLetters(letters))
}

// kept says what waits in an outbox that no instance runs, and for whom nobody is
// configured any more.
func kept(i *outbox.Inspection, configured map[string]bool) []finding.Finding {
	state := "stopped in order"
	if !i.Clean {
		state = "was not stopped in order, so some events may be delivered twice"
	}
	list := []finding.Finding{finding.Okf(subjectOutbox, "can be opened; the instance before %s", state)}
	for _, b := range i.Backends {
		text := fmt.Sprintf("%s to deliver, %d parked", events(b.Waiting), b.Parked)
		if configured[b.Name] {
			list = append(list, finding.Okf(b.Name, "%s", text))
		} else {
			list = append(list, unconfigured(b.Name, b.Waiting+b.Parked))
		}
	}
	return append(list, deadLetters(i))
}

// unconfigured is about a backend that is not configured, and for which events wait.
func unconfigured(name string, waiting int) finding.Finding {
	if waiting == 0 {
		return finding.Okf(name, "is not configured, and nothing waits for it")
	}
	return finding.Warnf(name, "configure it under this name again, or give its events to another backend with: eventpusher outbox move "+name+
		" NEW, or give them up with: eventpusher outbox forget "+name, "is not configured, and %s wait for it until they are older than [outbox] max_age", events(waiting))
}

func deadLetters(letters Lister) finding.Finding {
	list, err := letters.List(outbox.LetterFilter{Limit: mostLetters})
	switch {
	case err != nil:
		return finding.Failf(subjectOutbox, "", "the dead letters cannot be read: %v", err)
	case len(list) == 0:
		return finding.Okf(subjectOutbox, "no dead letters")
	}
	number := "1 dead letter"
	if n := len(list); n == mostLetters {
		number = fmt.Sprintf("%d dead letters or more", n)
	} else if n > 1 {
		number = fmt.Sprintf("%d dead letters", n)
	}
	return finding.Warnf(subjectOutbox, "see: eventpusher dlq list", "%s", number)
}

// cannotOpen explains why the outbox was not opened.
func cannotOpen(dir string, err error) finding.Finding {
	var locked *outbox.LockedError
	switch {
	case errors.As(err, &locked):
		return finding.Failf(subjectOutbox, "ask again when that process has started, or end it", "%s is in use by %s, which does not answer on its control socket", dir, locked.Holder)
	case errors.Is(err, fs.ErrNotExist):
		return finding.Okf(subjectOutbox, "there is none in %s yet; the first start makes it", dir)
	}
	return finding.Failf(subjectOutbox, "", "%s", strings.TrimPrefix(err.Error(), "outbox: "))
}

// Disk says whether the outbox has the space that it is allowed to fill.
func Disk(cfg config.Outbox) finding.Finding {
	dir := cfg.Path
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir) // of an outbox that is still to be made
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return finding.Failf(subjectOutbox, "", "the file system of %s cannot be looked at: %v", cfg.Path, err)
	}
	free := int64(fs.Bavail) * int64(fs.Bsize)
	left := int64(cfg.MaxSize) - size(filepath.Join(cfg.Path, "segments"))
	switch {
	case free < leastFree:
		return finding.Failf(subjectOutbox, "free some space, or move [outbox] path", "only %s are free for %s", bytes(free), cfg.Path)
	case free < left:
		return finding.Warnf(subjectOutbox, "lower [outbox] max_size, or free some space", "%s are free for %s, and [outbox] max_size allows %s more", bytes(free), cfg.Path, bytes(left))
	}
	return finding.Okf(subjectOutbox, "%s are free for %s", bytes(free), cfg.Path)
}

// size adds up the files of a directory; what cannot be read counts nothing.
func size(dir string) (total int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
	}
	return total
}

func bytes(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MiB", max(n, 0)>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

func events(n int) string {
	if n == 1 {
		return "1 event"
	}
	return fmt.Sprintf("%d events", n)
}
