package plugintest

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// shopping is what a browser saw of a shop.
func shopping(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/shopping.har")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestParseCapture(t *testing.T) {
	cases, unanswered, err := ParseCapture("shopping.har", shopping(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) != 4 || unanswered != 1 {
		t.Fatalf("%d exchanges, %d without an answer", len(cases), unanswered)
	}
	get, post := cases[0], cases[2]
	if get.Name != "GET /books?page=2" || get.Request.Host != "shop.example:8443" || get.Request.Scheme != "https" || get.Client.Addr().String() != "203.0.113.9" ||
		!get.Time.Equal(time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)) {
		t.Errorf("got %+v", get)
	}
	if len(get.Request.Fields) != 1 || get.Request.Fields[0] != (Field{"accept", "text/html"}) {
		t.Errorf("what belongs to the wire is not left out: %v", get.Request.Fields)
	}
	if get.Response.Status != 200 || strings.Join(get.Response.Chunks, "") != "three books" {
		t.Errorf("got %+v", get.Response)
	}
	if strings.Join(post.Request.Chunks, "") != "one book" || post.Response.Chunks != nil || post.Line != 3 {
		t.Errorf("got %+v", post)
	}
}

func TestCapturesThatAreNone(t *testing.T) {
	one := func(request, response string) string {
		return `{"log": {"entries": [{"request": ` + request + `, "response": ` + response + `}]}}`
	}
	const fine = `{"method": "GET", "url": "http://a/"}`
	for name, c := range map[string]struct{ text, want string }{
		"no JSON":         {"log: 1", "not a HAR document"},
		"something else":  {`{"entries": []}`, "it has no log"},
		"nothing in it":   {`{"log": {}}`, "has no exchange with an answer"},
		"no answers":      {one(fine, `{"status": 0}`), "has no exchange with an answer"},
		"no URL":          {one(`{"method": "GET"}`, `{"status": 200}`), `log.entries[0]: request.url: ""`},
		"another scheme":  {one(`{"method": "GET", "url": "data:,a"}`, `{"status": 200}`), "is not http:// or https://"},
		"no method":       {one(`{"url": "http://a/"}`, `{"status": 200}`), "request.method is missing"},
		"a strange one":   {one(fine, `{"status": 1000}`), "response.status: 1000"},
		"a broken body":   {one(fine, `{"status": 200, "content": {"text": "%", "encoding": "base64"}}`), "response.body: not base64"},
		"another coding":  {one(fine, `{"status": 200, "content": {"text": "a", "encoding": "rot13"}}`), `unknown encoding "rot13"`},
		"a time in words": {`{"log": {"entries": [{"startedDateTime": "noon"}]}}`, "not a HAR document"},
	} {
		if _, _, err := ParseCapture("a.har", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzParseCapture(f *testing.F) {
	f.Add(shopping(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		cases, _, err := ParseCapture("a.har", data)
		if (err == nil) == (len(cases) == 0) {
			t.Fatalf("%d cases, %v", len(cases), err)
		}
	})
}

// The same capture before two configurations: what differs is told, and nothing
// else.
func TestReplay(t *testing.T) {
	r, err := NewRunner(guest, options)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cases, _, err := ParseCapture("shopping.har", shopping(t))
	if err != nil {
		t.Fatal(err)
	}
	version := func(config string) Version { return Version{r, json.RawMessage(config)} }
	replay := func(before, after string, tolerance float64) Replayed {
		t.Helper()
		done, err := Replay(t.Context(), version(before), version(after), cases, tolerance)
		if err != nil {
			t.Fatal(err)
		}
		if done.Exchanges != len(cases) || done.OldFuel == 0 {
			t.Errorf("got %+v", done)
		}
		return done
	}
	if same := replay(`{"limit": 3}`, `{"limit": 3}`, 0); len(same.Differences) > 0 || same.OldFuel != same.NewFuel {
		t.Errorf("a version is not like itself: %+v", same)
	}

	other := replay(`{"stamp": "on"}`, `{"stamp": "off"}`, -1)
	want := []string{`request header x-stamp: "off", was "on"`, `response header x-stamped: "off", was "on"`}
	if len(other.Differences) != 3 || strings.Join(other.Differences[0].Changes, "; ") != strings.Join(want, "; ") {
		t.Errorf("got %+v", other.Differences)
	}

	// Exchanges share a policy: the limit is reached at the fourth.
	limited := replay(`{}`, `{"limit": 3}`, -1)
	if len(limited.Differences) != 1 || limited.Differences[0].Entry != 4 || !strings.HasPrefix(limited.Differences[0].Changes[0], "verdict: answer, was ") {
		t.Errorf("got %+v", limited.Differences)
	}

	if _, err := Replay(t.Context(), version(`{}`), version(`{"limit": -1}`), cases, 0); err == nil || !strings.Contains(err.Error(), "the new version: ") {
		t.Errorf("got %v", err)
	}
}
