package sdk

import (
	"encoding/json"
	"testing"
)

type common struct {
	Shared string `json:"shared"`
}

type described struct {
	common
	Header string             `json:"header" about:"bears the key"`
	Mode   string             `json:"mode" oneof:"fast,exact"`
	Limit  uint32             `json:"limit"`
	Names  []string           `json:"names"`
	Pairs  map[string]int     `json:"pairs"`
	Free   json.RawMessage    `json:"free"`
	Inner  []struct{ A bool } `json:"inner"`
	hidden int
	Unread int `json:"-"`
}

func (d *described) Default() { d.Header, d.Limit, d.Names, d.hidden = "x-key", 10, []string{"a"}, 1 }

func TestSchema(t *testing.T) {
	const want = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{` +
		`"free":{},` +
		`"header":{"description":"bears the key","type":"string","default":"x-key"},` +
		`"inner":{"type":"array","items":{"type":"object","properties":{"A":{"type":"boolean"}},"additionalProperties":false}},` +
		`"limit":{"type":"integer","minimum":0,"default":10},` +
		`"mode":{"type":"string","enum":["fast","exact"]},` +
		`"names":{"type":"array","default":["a"],"items":{"type":"string"}},` +
		`"pairs":{"type":"object","additionalProperties":{"type":"integer"}},` +
		`"shared":{"type":"string"}},"additionalProperties":false}`
	p := Define(func(described) (Handler, error) { return nil, nil })
	if got := string(p.Schema()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWhichOfSeveralPlugins(t *testing.T) {
	plugins := map[string]Plugin{"a": {schema: func() []byte { return []byte("a") }}, "a-b": {schema: func() []byte { return []byte("ab") }}}
	for name, want := range map[string]string{"a": "a", "a-x": "a", "a-b": "ab", "a-b-c": "ab", "b": "", "": "", "ab": ""} {
		p, ok := named(plugins, name)
		if got := string(p.Schema()); ok != (want != "") || got != want {
			t.Errorf("%q is %q", name, got)
		}
	}
}
