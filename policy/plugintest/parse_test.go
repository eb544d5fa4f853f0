package plugintest

import (
	"strings"
	"testing"
)

func TestParseDefaults(t *testing.T) {
	cases, err := Parse("f", []byte("config: {a: 1}\ncases:\n- name: one\n- name: two\n  config: null\n  client: \"2001:db8::1\""))
	if err != nil || len(cases) != 2 {
		t.Fatal(cases, err)
	}
	one, two := cases[0], cases[1]
	if string(one.Config) != `{"a":1}` || one.Line != 3 || one.Request.Method != "GET" || one.Response.Status != 200 || one.Repeat != 1 {
		t.Errorf("got %+v", one)
	}
	if two.Config != nil || two.Client.String() != "[2001:db8::1]:40000" {
		t.Errorf("got %+v", two)
	}
}

func TestParseProblems(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "f: is empty",
		"cases: [":                        "f:1: not YAML: ",
		"[]":                              "f:1:1: is a list; a mapping is expected",
		"config: {}":                      "f:1:1: has no cases",
		"cases: []":                       "f:1:8: cases: there are none",
		"cases: [{}]":                     "f:1:9: cases[0].name: is missing",
		"case: []":                        `f:1:1: case: unknown field; did you mean "cases"?`,
		"cases: [{name: a, nonsense: 1}]": "f:1:19: cases[0].nonsense: unknown field; expected allowOnHeadersStopIteration, calls, client, config, ",
		"cases: [{name: a}, {name: a}]":   `f:1:20: cases[1].name: "a" is there twice; first on line 1`,
		"cases: [{name: a, name: b}]":     "cases[0].name: is there twice",
		"cases: [{name: a, repeat: 0}]":   `f:1:27: cases[0].repeat: is "0"; a number from 1 to 100000`,
		"cases: [{name: a, time: now}]":   "a time such as",
		"cases: [{name: a, every: 1}]":    "a duration such as",
		"cases: [{name: a, client: me}]":  "an address such as",
		"cases: [{name: a, response: {status: 99}}]":                                      "a number from 200 to 599",
		"cases: [{name: a, response: {method: GET}}]":                                     "cases[0].response.method: unknown field",
		"cases: [{name: a, request: {headers: {A: 1, a: 2}}}]":                            "is there twice; first on line 1: give a list",
		"cases: [{name: a, request: {headers: {\":path\": /}}}]":                          "is no header's name",
		"cases: [{name: a, request: {headers: [a]}}]":                                     "a mapping of names to values is expected",
		"cases: [{name: a, request: {body: a, chunks: [b]}}]":                             "body or chunks, not both",
		"cases: [{name: a, request: {chunks: [\"\"]}}]":                                   "a chunk is not empty",
		"cases: [{name: a, request: {trailers: {a: b}}}]":                                 "trailers follow a body",
		"cases: [{name: a, expect: {verdict: maybe}}]":                                    `unknown value "maybe"; expected continue, answer, close, fail or refuse`,
		"cases: [{name: a, expect: {error: x}}]":                                          "goes with verdict: fail",
		"cases: [{name: a, calls: [{}]}]":                                                 "cases[0].calls[0].service: is missing",
		"cases: [{name: a, calls: [{service: a, error: b, timeout: true}]}]":              "one of response, error and timeout",
		"cases: [{name: a, calls: [{service: a, timeout: 5s}]}]":                          "is true, or left out",
		"cases: [{name: a, expect: {fuel: -1}}]":                                          "an amount of fuel is expected",
		"cases: [{name: a, connection: {pieces: [{}]}}]":                                  "a piece is of one: client, or service",
		"cases: [{name: a, connection: {pieces: [{client: a, service: b}]}}]":             "a piece is of one: client, or service",
		"cases: [{name: a, connection: {pieces: [{client: \"\"}]}}]":                      "a piece is not empty",
		"cases: [{name: a, connection: {pieces: [{client: a, end: true}, {client: b}]}}]": "nothing follows the end",
		"cases: [{name: a, request: {path: /}, connection: {}}]":                          "cases[0].request: does not go with a connection",
		"cases: [{name: a, connection: {}, expect: {response: {status: 200}}}]":           "of a connection there is a verdict",
		"cases: [{name: a, expect: {verdict: close}}]":                                    "close goes with a connection",
		"cases: [{name: a}]\n---\ncases: []":                                              "is one document",
		"cases: [{name: a, config: {x: 1, x: 2}}]":                                        "is there twice",
		"x: &x [1,1,1,1,1,1,1,1]\ncases: [{name: a, config: .inf}]":                       "is not JSON",
	} {
		if _, err := Parse("f", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n\tgot  %v\n\twant %s", text, err, want)
		}
	}
}

// Aliases that multiply are refused before they fill the memory.
func TestParseAliases(t *testing.T) {
	text := "config:\n  a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
	for i := 1; i < 9; i++ {
		n, before := string(rune('0'+i)), "*a"+string(rune('0'+i-1))
		text += "  a" + n + ": &a" + n + " [" + strings.Repeat(before+",", 9) + before + "]\n"
	}
	if _, err := Parse("f", []byte(text+"cases: [{name: a}]")); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("config: {a: 1}\ncases:\n- name: a\n  request: {headers: {a: [b, c]}, chunks: [a]}\n  expect: {fuel: 1}\n"))
	f.Add([]byte("cases: [{name: a, expect: &e {}}, {name: b, expect: *e}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cases, err := Parse("f", data)
		if err != nil {
			return
		}
		var results []Result
		for _, c := range cases {
			results = append(results, Result{Name: c.Name, Fuel: 7, OK: true, expect: c.Expect, edit: c.edit})
		}
		updated, _, err := Update(data, results)
		if err != nil {
			return
		}
		if again, err := Parse("f", updated); err != nil || len(again) != len(cases) {
			t.Errorf("golden fuel spoils the file: %v\n%s\n%s", err, data, updated)
		}
	})
}

func TestConfigurationsThatDifferInAMember(t *testing.T) {
	const text = "plugin: jwt\nconfig: &c {a: 1, b: [2]}\ncases:\n- name: one\n- name: other\n  config: {<<: *c, a: 3}\n"
	cases, err := Parse("cases.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(cases[0].Config) + string(cases[1].Config) + cases[1].Plugin; got != `{"a":1,"b":[2]}{"a":3,"b":[2]}jwt` {
		t.Error(got)
	}
}
