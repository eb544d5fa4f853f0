package apikey

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

// The second key is "letmein".
const twoKeys = `{"keys": [
	{"consumer": "alice", "key": "opensesame"},
	{"consumer": "bob", "sha256": "1c8bfe8f801d79745c4631d09fff36c82aa37fc4cce4fc946683d7b336b63032"}
]}`

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		name, config     string
		header           policytest.Header
		consumer, status string
	}{
		{"a key in the clear", twoKeys, policytest.Fields("x-api-key", "opensesame"), "alice", "200"},
		{"a key known by its digest", twoKeys, policytest.Fields("X-Api-Key", "letmein"), "bob", "200"},
		{"no key", twoKeys, nil, "", "401"},
		{"an empty key", twoKeys, policytest.Fields("x-api-key", ""), "", "401"},
		{"an unknown key", twoKeys, policytest.Fields("x-api-key", "opensesamE"), "", "401"},
		{"a prefix of a key", twoKeys, policytest.Fields("x-api-key", "open"), "", "401"},
		{"a digest is not a key", twoKeys, policytest.Fields("x-api-key",
			"1c8bfe8f801d79745c4631d09fff36c82aa37fc4cce4fc946683d7b336b63032"), "", "401"},
		{"another header", `{"header": "authorization", "keys": [{"consumer": "carol", "key": "k"}]}`,
			policytest.Fields("authorization", "k"), "carol", "200"},
		{"a consumer the client made up", twoKeys,
			policytest.Fields("x-consumer", "root", "x-consumer", "admin", "x-api-key", "opensesame"), "alice", "200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := policytest.Start(t, newAPIKey, c.config)
			for range 2 { // The second time a digest's key is known in the clear.
				x := p.Do(policytest.Exchange{Request: policytest.Message{Header: c.header}})
				if x.Status() != c.status || x.Answered != (c.status != "200") {
					t.Fatalf("status %s, answered %v; want status %s", x.Status(), x.Answered, c.status)
				}
				if got := strings.Join(x.Request.Header.Values("x-consumer"), ","); c.status == "200" && got != c.consumer {
					t.Errorf("x-consumer is %q, want %q", got, c.consumer)
				}
			}
		})
	}
}

func TestTheKeyIsHidden(t *testing.T) {
	request := policytest.Exchange{Request: policytest.Message{Header: policytest.Fields("x-api-key", "k")}}
	for config, want := range map[string]string{
		`{"keys": [{"consumer": "a", "key": "k"}]}`:                "",
		`{"hide": false, "keys": [{"consumer": "a", "key": "k"}]}`: "k",
	} {
		if got := policytest.Start(t, newAPIKey, config).Do(request).Request.Header.Get("x-api-key"); got != want {
			t.Errorf("%s: the service sees the key %q, want %q", config, got, want)
		}
	}
}

func TestRefusalSaysWhatToDo(t *testing.T) {
	p := policytest.Start(t, newAPIKey, twoKeys)
	x := p.Do(policytest.Exchange{Request: policytest.Message{Header: policytest.Fields("x-request-id", "r-1")}})
	var problem struct {
		Type, Title, Detail, RequestID string
		Status                         int
	}
	if err := json.Unmarshal([]byte(x.Response.Body), &problem); err != nil {
		t.Fatalf("%v in %s", err, x.Response.Body)
	}
	if problem.Status != 401 || problem.Title == "" || problem.RequestID != "r-1" || !strings.Contains(problem.Detail, "x-api-key") {
		t.Errorf("the problem is %+v", problem)
	}
	if got := x.Response.Header.Get("content-type"); got != "application/problem+json" {
		t.Errorf("content-type is %q", got)
	}
	if got := x.Response.Header.Get("www-authenticate"); got != `ApiKey header="x-api-key"` {
		t.Errorf("www-authenticate is %q", got)
	}
}

func TestConfigurationsRefused(t *testing.T) {
	for name, c := range map[string]struct{ config, why string }{
		"no keys":         {`{}`, "keys: there are none"},
		"no consumer":     {`{"keys": [{"key": "k"}]}`, "keys[0].consumer: missing"},
		"both forms":      {`{"keys": [{"consumer": "a", "key": "k", "sha256": "00"}]}`, "keys[0] (a): give either key or sha256"},
		"neither form":    {`{"keys": [{"consumer": "a"}]}`, "keys[0] (a): give either key or sha256"},
		"a short digest":  {`{"keys": [{"consumer": "a", "sha256": "00"}]}`, "keys[0].sha256 (a): want 64 hexadecimal digits"},
		"an odd digest":   {`{"keys": [{"consumer": "a", "sha256": "zz"}]}`, "keys[0].sha256 (a): want 64 hexadecimal digits"},
		"unknown field":   {`{"key": []}`, `unknown field "key"`},
		"empty header":    {`{"header": "", "keys": [{"consumer": "a", "key": "k"}]}`, "a key could stand nowhere"},
		"not an object":   {`[]`, "cannot unmarshal array"},
		"something extra": {`{"keys": [{"consumer": "a", "key": "k"}]} {}`, "something behind its end"},
	} {
		if got := policytest.Refusal(t, newAPIKey, c.config); !strings.Contains(got, c.why) {
			t.Errorf("%s: refused with %q, want %q", name, got, c.why)
		}
	}
}
