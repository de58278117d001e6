//go:build linux

package pagetest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "write screenshots to this `directory`")

const asked = "token = \"" + token + "\""

// TestLivePage: an event is on the page within a second, what it says is hidden until asked
// for, and a dead letter is replayed by a click and arrives.
func TestLivePage(t *testing.T) {
	w := newWorld(t, asked)
	b := open(t, w.page, 1280, "light")
	b.signIn()
	b.accessible()

	// The page's own clock says when the row was there.
	value[bool](b, `new MutationObserver(() => { window.shown ??= Date.now(); }).observe(document.querySelector("#tail"), {childList: true}); true`)
	sent := time.Now()
	w.say("alice", "a1", "the kettle is on")
	b.until("the event is shown", `window.shown > 0`)
	shown := value[int64](b, `window.shown`)
	t.Logf("figures: an event is on the page after %s", time.UnixMilli(shown).Sub(sent))
	if d := time.UnixMilli(shown).Sub(sent); d > time.Second {
		t.Errorf("the event is on the page after %s, want 1s at most", d)
	}
	b.until("it is delivered", `document.querySelector("#tail").innerText.includes("crm: delivered, archive: delivered")`)
	b.click("#tail summary")
	if strings.Contains(value[string](b, `document.documentElement.outerHTML`), "kettle") {
		t.Error("the page shows what a message says without being asked")
	}
	b.click("#tail .inside button")
	b.until("its text is shown", `document.querySelector("#tail pre")?.textContent === "the kettle is on"`)

	w.sink.Answer(http.StatusBadRequest)
	w.say("carol", "a2", "refused")
	b.until("the dead letter is shown", `document.querySelectorAll("#letters > li").length === 1`)
	w.sink.Answer(http.StatusOK)
	before := len(w.sink.Requests())
	b.click("#letters summary")
	b.accessible()
	b.click("#letters .replay")
	b.until("it is said to be replayed", `document.querySelector("#letters-result").textContent.startsWith("1 dead letter is replayed")`)
	last := w.sink.Wait(before + 1)[before]
	if got := last.Form.Get("message"); got != "refused" || last.Path != "/events" {
		t.Errorf("%s got %q", last.Path, got)
	}
	b.until("the list is empty", `!document.querySelector("#letters-empty").hidden`)
	b.quiet()
}

// TestDrop: a dead letter is dropped only if the question is answered with yes.
func TestDrop(t *testing.T) {
	w := newWorld(t, asked)
	w.sink.Answer(http.StatusBadRequest)
	w.say("carol", "a1", "refused")
	b := open(t, w.page, 390, "light")
	b.signIn()
	b.until("the dead letter is shown", `document.querySelectorAll("#letters > li").length === 1`)
	b.click("#letters summary")
	b.click("#letters .drop")
	b.until("it is asked", `document.querySelector("#confirm").open`)
	b.accessible()
	b.do(chromedp.KeyEvent("\x1b"))
	b.until("the question is gone", `!document.querySelector("#confirm").open`)
	b.click("#letters .drop")
	b.until("it is asked", `document.querySelector("#confirm").open`)
	b.click("#confirm-yes")
	b.until("it is dropped", `document.querySelector("#letters-result").textContent === "1 dead letter is dropped."`)
	b.until("the list is empty", `document.querySelectorAll("#letters > li").length === 0`)
	b.until("the focus is on the page still", `document.activeElement.id === "letters-title"`)
	b.quiet()
}

// TestTryAnExpression: a typo is marked at its place, and a right expression says which of
// the last events pass and what they get.
func TestTryAnExpression(t *testing.T) {
	w := newWorld(t, asked)
	b := open(t, w.page, 1280, "light")
	b.signIn()
	w.say("alice", "a1", "tea")
	w.say("carol", "a2", "coffee")
	b.until("both are shown", `document.querySelectorAll("#tail > li").length >= 2`)
	b.write("#try-keep", "true and\nevent.bodi == \"tea\"")
	b.click("#try .main")
	b.until("the typo is marked", `document.querySelector("#try-keep-fault pre")?.textContent === 'event.bodi == "tea"\n      ^'`)
	b.until("it is explained", `document.querySelector("#try-keep-fault p").textContent.includes("did you mean event.body?")`)
	b.accessible()
	b.do(chromedp.SetValue(chromedp.CSS("#try-keep"), `event.body == "tea"`))
	b.click("#try-add")
	b.write("#try-metadata input", "who")
	b.write("#try-value-1", "event.user")
	b.do(chromedp.KeyEvent("\r"))
	b.until("it is judged", `/Of \d+ events [12] pass/.test(document.querySelector("#try-result").textContent)`)
	b.until("the metadata are shown", `document.querySelector("#try-rows").innerText.includes('passes: adds who = "alice@example.org"')`)
	b.accessible()
	b.quiet()
}

// TestReadOnly: without a token everything can be seen but what messages say, and nothing
// can be changed. A process that has stopped is noticed.
func TestReadOnly(t *testing.T) {
	w := newWorld(t, "")
	w.sink.Answer(http.StatusBadRequest)
	w.say("alice", "a1", "secret tea")
	b := open(t, w.page, 390, "light")
	b.until("the dead letter is shown", `document.querySelectorAll("#letters > li").length === 2`)
	b.click("#letters summary")
	b.until("nothing can be done with it", `[...document.querySelectorAll("#letters button")].every(b => b.disabled)`)
	b.write("#try-keep", `event.body contains "secret"`)
	b.click("#try .main")
	b.until("bodies are empty", `document.querySelector("#try-result").textContent.includes("event.body and texts in metadata are empty here")`)
	b.until("none passes", `document.querySelector("#try-result").textContent.includes(" 0 pass")`)
	b.accessible()
	b.quiet()
}

// TestForeignMarkup: what users write is text on the page, wherever it is shown.
func TestForeignMarkup(t *testing.T) {
	const evil = `</pre><img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`
	w := newWorld(t, asked)
	w.sink.Answer(http.StatusBadRequest)
	w.say("alice", evil, evil)
	b := open(t, w.page, 1280, "light")
	b.signIn()
	b.until("the dead letter is shown", `document.querySelectorAll("#letters > li").length === 2`)
	for _, list := range []chromedp.CSS{"#tail > li:nth-child(2)", "#letters > li"} {
		b.click(list + " summary")
		b.click(list + " .inside > div > button")
		b.until("the text is there as it was written", fmt.Sprintf("document.querySelector(%q)?.textContent === %q", list+" pre", evil))
		b.until("so is the id", fmt.Sprintf("document.querySelector(%q).textContent.includes(%q)", list, "stanza "+evil))
	}
	b.write("#try-keep", `true`)
	b.click("#try-add")
	b.write("#try-metadata input", "said")
	b.write("#try-value-1", "event.body\r")
	b.until("the metadata are shown", `document.querySelector("#try-rows").textContent.includes("onerror")`)
	b.until("nothing of it is markup", `document.querySelectorAll("main img, main script").length === 0 && document.title === "eventpusher: ready"`)
	b.quiet()
}

// TestTroubles: the page says that the token is wrong and that the process has gone.
func TestTroubles(t *testing.T) {
	w := newWorld(t, asked)
	b := open(t, w.page, 390, "light")
	b.write("#token", "wrong\r")
	b.until("the token is refused", `document.querySelector("#sign-in-error").textContent === "This is not the token of [admin]."`)
	b.accessible()
	value[bool](b, `document.querySelector("#token").select(), true`)
	b.signIn()
	b.until("it is ready", `document.querySelector("#state").textContent === "Ready"`)
	w.stop()
	b.until("the end is noticed", `/trying again$/.test(document.querySelector("#state").textContent)`)
}

// TestWidths: nothing is wider than the window, and no state is inaccessible, in light and
// dark. With -screenshots it writes the pictures of docs/.
func TestWidths(t *testing.T) {
	w := newWorld(t, asked)
	play(w)
	if *screenshots != "" {
		w.t.Cleanup(w.chatter())
	}
	for name, tc := range map[string]struct {
		width  int64
		scheme string
	}{
		"page-1280": {1280, "light"}, "page-390": {390, "light"}, "page-1280-dark": {1280, "dark"}, "page-390-dark": {390, "dark"},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, w.page, tc.width, tc.scheme)
			b.accessible()
			b.signIn()
			b.until("all is there", `document.querySelectorAll("#tail > li").length >= 10 && document.querySelectorAll("#letters > li").length > 0`)
			b.write("#try-keep", `event.kind == "chat" and event.bdy matches "tea"`)
			b.click("#try .main")
			b.until("the typo is marked", `document.querySelector("#try-keep-fault pre")`)
			b.accessible()
			if over := value[float64](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
				t.Errorf("the page is %v pixels wider than the window", over)
			}
			b.quiet()
			if tc.scheme == "light" {
				b.picture(name)
			}
		})
	}
}

// play makes what a screenshot should show.
func play(w *world) {
	for _, user := range []string{"alice", "bob", "carol"} {
		w.online(user)
	}
	for n := range 4 {
		id := fmt.Sprint("m", n)
		w.say("alice", id, "tea?")
		w.say("bot", id, "I am a bot")
		w.say("carol", id, "tea!")
	}
	w.sink.Wait(16)
	w.sink.Answer(http.StatusBadRequest)
	w.say("bob", "a4", "refused")
}

// picture writes a screenshot, if the test is to.
func (b *browser) picture(name string) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	b.do(chromedp.Sleep(45 * time.Second)) // for the charts
	b.click("#pause")
	value[bool](b, `document.querySelectorAll("#tail > li:nth-child(n+11)").forEach((e) => e.remove()), scrollTo(0, 0), document.activeElement.blur(), true`)
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// chatter has users talk until the function that it returns is called.
func (w *world) chatter() (end func()) {
	ended := make(chan struct{})
	var talking sync.WaitGroup
	talking.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-ended:
				return
			case <-time.After(time.Duration(100+rand.N(900)) * time.Millisecond):
			}
			if n == 1 {
				w.sink.Answer(http.StatusOK) // the dead letter is one
			}
			w.say([]string{"alice", "carol", "bot"}[n%3], fmt.Sprint("c", n), "tea")
		}
	})
	return func() { close(ended); talking.Wait() }
}
