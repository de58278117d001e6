package catalog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/catalog"
	"eventpusher/backends/form"
	"eventpusher/config"
	"eventpusher/event"
)

// shownSorts are those that docs/events.md shows. The others differ in type and direction only.
var shownSorts = []string{
	"chat.in", "chat.out", "groupchat.in", "groupchat.out", "user_status.online", "user_status.offline", "unack", "stored", "missed", "account_removed",
}

const eventsIntro = `# Events as receivers get them

Each sort of event in each [form](destinations.md#in-which-form). The events are made up, and JSON is indented here; on the wire it has no blanks. ` + "`normal` and `headline`" + `
look like ` + "`chat`" + ` with another ` + "`type`" + `. What each field means is in [destinations](destinations.md#json). This page is written by a test, which compares it with the program.

* ` + "`json`" + ` and the body of ` + "`cloudevents_binary`" + ` are the same.
* ` + "`cloudevents`" + ` has the attributes beside ` + "`data`" + `, which is what ` + "`json`" + ` has.
* ` + "`cloudevents_binary`" + ` has the attributes as headers: ` + "`ce-id`" + ` over HTTP and NATS, ` + "`cloudEvents:id`" + ` in RabbitMQ, ` + "`ce_id`" + ` in Kafka.
* ` + "`mongooseim`" + ` differs by service, and has no words for some events.
`

// TestEventsPage: docs/events.md shows what destinations send. UPDATE_GOLDEN=1 writes it.
func TestEventsPage(t *testing.T) {
	var page strings.Builder
	page.WriteString(eventsIntro)
	post := poster(t)
	for _, sort := range shownSorts {
		selection, err := event.ParseSelection([]string{sort})
		if err != nil {
			t.Fatal(err)
		}
		e := selection.Samples()[0]
		e.Metadata = event.Metadata{"tenant": "a"}
		fmt.Fprintf(&page, "\n## %s\n", sort)
		for _, format := range []string{config.FormatJSON, config.FormatCloudEvents, config.FormatCloudEventsBinary} {
			header, body := post(format, sort, e)
			if format == config.FormatCloudEventsBinary {
				fmt.Fprintf(&page, "\n`%s`: the headers over HTTP\n\n```\n%s```\n", format, header)
				continue
			}
			fmt.Fprintf(&page, "\n`%s`\n\n```json\n%s\n```\n", format, indented(t, body))
		}
		if e.Kind == event.Chat {
			_, body := post(config.FormatMongooseIM, sort, e)
			fmt.Fprintf(&page, "\n`mongooseim`, `http`\n\n```\n%s\n```\n", body)
		}
		for _, service := range []struct {
			name string
			form form.Payload
		}{{"sns", form.Payload(event.BareJID)}, {"rabbit", form.Payload(event.FullJID)}} {
			if !service.form.Takes(&e) {
				continue
			}
			m, err := service.form.Write(&e)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&page, "\n`mongooseim`, `%s`\n\n```json\n%s\n```\n", service.name, indented(t, m.Body))
		}
	}
	file := filepath.Join("..", "..", "docs", "events.md")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), page.String()); diff != "" {
		t.Errorf("docs/events.md (-page +program), UPDATE_GOLDEN=1 writes it:\n%s", diff)
	}
}

// poster returns a function that has a destination post an event, and returns what arrives.
func poster(t *testing.T) func(format, sort string, e event.Event) (header, body string) {
	var got nethttp.Header
	var read []byte
	receiver := httptest.NewServer(nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		var err error
		if read, err = io.ReadAll(r.Body); err != nil {
			t.Error(err)
		}
		got = r.Header
	}))
	t.Cleanup(receiver.Close)
	return func(format, sort string, e event.Event) (header, body string) {
		t.Helper()
		built, err := catalog.Build(&config.Config{Destinations: []config.Destination{{
			Name: "page", Type: "http", URL: config.Secret(receiver.URL), Choice: config.Choice{Events: []string{sort}, Format: format},
		}}}, discard, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer built[0].Close()
		if err := errors.Join(built[0].Publish(t.Context(), []event.Event{e})...); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for name, values := range got {
			if strings.HasPrefix(name, "Ce-") || name == "Content-Type" {
				lines = append(lines, strings.ToLower(name)+": "+values[0]+"\n")
			}
		}
		slices.Sort(lines)
		return strings.Join(lines, ""), string(read)
	}
}

func indented[T string | []byte](t *testing.T, data T) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, []byte(data), "", "  "); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestRecipes: each destination that the documentation shows is one that check accepts.
func TestRecipes(t *testing.T) {
	const start = "[component]\nname = 'events.example.org'\nsecret = 'hunter2'\n[general]\nhosts = ['example.org']\n"
	blocks := regexp.MustCompile("(?s)```toml\n(\\[\\[destination\\]\\]\n.*?)```")
	named := regexp.MustCompile(`(?m)^(\w*file)\s*=\s*"([^"]*)"`)
	contents := map[string]string{"key_file": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "url_file": "https://hooks.example.org/x"}
	least := map[string]int{"http": 3, "nats": 3, "kafka": 3, "rabbitmq": 1, "sns": 1, "destinations": 1}
	for page, least := range least {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", page+".md"))
		if err != nil {
			t.Fatal(err)
		}
		found := blocks.FindAllStringSubmatch(string(text), -1)
		if len(found) < least {
			t.Errorf("%s.md has %d destinations, want %d", page, len(found), least)
		}
		for _, block := range found {
			if !strings.Contains(block[1], "\ntype ") { // a part of one
				continue
			}
			dir := t.TempDir()
			for _, file := range named.FindAllStringSubmatch(block[1], -1) {
				content := contents[file[1]]
				if content == "" {
					content = "something"
				}
				if err := os.WriteFile(filepath.Join(dir, file[2]), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, problems := config.Parse([]byte(start+block[1]), nil, dir); len(problems) > 0 {
				t.Errorf("%s.md: %v\n%s", page, problems, block[1])
			}
		}
	}
}
