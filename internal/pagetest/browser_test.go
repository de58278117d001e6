//go:build linux

package pagetest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

const (
	chromium = "/usr/bin/chromium"
	install  = "run internal/harness/install.sh"
)

// browser is a tab of a Chromium of its own.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	complaints []string // of the console
}

// open starts Chromium and opens a page in a window of this width in pixels, in the light or
// the dark scheme.
func open(t *testing.T, url string, width int64, scheme string) *browser {
	t.Helper()
	if _, err := os.Stat(chromium); err != nil {
		t.Fatalf("%v; %s", err, install)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.WSURLReadTimeout(patience))
	ctx, end := context.WithTimeout(context.Background(), 4*patience)
	t.Cleanup(end)
	ctx, end = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(end)
	ctx, end = chromedp.NewContext(ctx)
	t.Cleanup(end)
	b := &browser{t: t, ctx: ctx}
	b.do(chromedp.EmulateViewport(width, 900))
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		t.Fatal(err)
	}
	console := chromedp.Console(ctx)
	var listening sync.WaitGroup
	listening.Go(func() {
		for m, err := range console {
			if err != nil {
				return // the browser has ended
			}
			b.mu.Lock()
			b.complaints = append(b.complaints, string(m.Type)+": "+m.Text+" "+m.URL)
			b.mu.Unlock()
		}
	})
	t.Cleanup(listening.Wait)
	t.Cleanup(end)
	b.do(chromedp.Navigate(url))
	return b
}

// quiet fails the test if the console has complained.
func (b *browser) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.complaints) > 0 {
		b.t.Errorf("the console says:\n%s", strings.Join(b.complaints, "\n"))
	}
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// value returns what an expression of JavaScript gives; a promise is awaited.
func value[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression[:min(len(expression), 200)], err)
	}
	return v
}

// until waits until an expression of JavaScript is true.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if value[bool](b, "!!("+expression+")") {
			return
		}
		if time.Now().After(deadline) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.t.Fatalf("waited in vain until %s\n%s\n%v", what, value[string](b, "document.body.innerText"), b.complaints)
		}
		b.do(chromedp.Sleep(50 * time.Millisecond))
	}
}

// click clicks on the first element of a selector.
func (b *browser) click(selector chromedp.CSS) {
	b.t.Helper()
	b.do(chromedp.Click(selector))
}

// write types a text into an input.
func (b *browser) write(selector chromedp.CSS, text string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(selector, text))
}

// signIn gives the token to the page.
func (b *browser) signIn() {
	b.t.Helper()
	b.write("#token", token+"\r")
	b.until("the page is live", `!document.querySelector("#live").hidden`)
}

// accessible fails the test for each violation that axe finds.
func (b *browser) accessible() {
	b.t.Helper()
	script, err := os.ReadFile(filepath.Join("..", "harness", "axe", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		b.t.Fatalf("%v; %s", err, install)
	}
	for _, v := range value[[]string](b, string(script)+`;axe.run().then(r => r.violations.flatMap(v => v.nodes.map(n => [v.id, v.help, n.html, n.failureSummary].join("\n"))))`) {
		b.t.Errorf("axe: %s", v)
	}
}
