//go:build linux

package harness

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSinkBehaviours(t *testing.T) {
	t.Parallel()
	k := HTTPSink(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	post := func(ctx context.Context) (*http.Response, error) {
		form := url.Values{"author": {"alice"}, "message": {"a b&c"}}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.URL()+"/hook?x=1", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return resp, err
	}
	ctx := context.Background()

	resp, err := post(ctx)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("at first: %v, %v", resp, err)
	}
	first := k.Wait(1)[0]
	if diff := cmp.Diff(url.Values{"author": {"alice"}, "message": {"a b&c"}}, first.Form); diff != "" || first.Path != "/hook?x=1" {
		t.Errorf("request for %s, form (-want +got):\n%s", first.Path, diff)
	}

	k.Answer(http.StatusTooManyRequests, "Retry-After", "7")
	resp, err = post(ctx)
	if err != nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "7" {
		t.Errorf("with a status: %v, %v", resp, err)
	}

	k.Hang()
	hanging, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := post(hanging)
		done <- err
	}()
	if last := k.Wait(3)[2]; last.Status != 0 {
		t.Errorf("hanging: answered %d", last.Status)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("hanging: %v", err)
	}

	k.Refuse()
	if _, err := post(ctx); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refusing: %v", err)
	}
	k.Accept()
	k.Answer(http.StatusNoContent)
	if resp, err = post(ctx); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("accepting again: %v, %v", resp, err)
	}
}
