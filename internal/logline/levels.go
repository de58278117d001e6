package logline

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
)

// Levels says from which level on lines are written: one for all, and others for some of the
// program's packages, those below them included. The zero Levels writes from slog.LevelInfo on.
// It is safe for concurrent use.
type Levels struct{ now atomic.Pointer[levels] }

type levels struct {
	all, least slog.Level
	packages   map[string]slog.Level
}

// Set changes the levels. Packages are named by their paths in the program, such as
// "component/trust".
func (l *Levels) Set(all slog.Level, packages map[string]slog.Level) {
	least := all
	for _, level := range packages {
		least = min(least, level)
	}
	l.now.Store(&levels{all, least, packages})
}

// Level implements slog.Leveler: no line below it is written, whatever its package.
func (l *Levels) Level() slog.Level {
	if now := l.now.Load(); now != nil {
		return now.least
	}
	return slog.LevelInfo
}

// admits reports whether a line of this level is written that the code at pc makes.
func (l *Levels) admits(level slog.Level, pc uintptr) bool {
	now := l.now.Load()
	if now == nil || len(now.packages) == 0 {
		return true // Level has decided
	}
	name := packageOf(pc)
	for ; name != ""; name, _ = cutLast(name) {
		if own, ok := now.packages[name]; ok {
			return level >= own
		}
	}
	return level >= now.all
}

// packageOf returns the path of a package of the program.
func packageOf(pc uintptr) string {
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	name := strings.TrimPrefix(f.Function, "eventpusher/")
	slash := strings.LastIndexByte(name, '/') + 1
	if dot := strings.IndexByte(name[slash:], '.'); dot >= 0 {
		return name[:slash+dot]
	}
	return name
}

// cutLast returns the path without its last element.
func cutLast(path string) (before string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", false
	}
	return path[:i], true
}

// Filter returns a handler that leaves out what the levels do not admit, in front of to. The
// level of to is to be l.
func (l *Levels) Filter(to slog.Handler) slog.Handler { return &filtered{to, l} }

type filtered struct {
	slog.Handler
	levels *Levels
}

func (f *filtered) Handle(ctx context.Context, r slog.Record) error {
	if !f.levels.admits(r.Level, r.PC) {
		return nil
	}
	return f.Handler.Handle(ctx, r)
}

func (f *filtered) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &filtered{f.Handler.WithAttrs(attrs), f.levels}
}

func (f *filtered) WithGroup(name string) slog.Handler {
	return &filtered{f.Handler.WithGroup(name), f.levels}
}
