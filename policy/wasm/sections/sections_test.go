package sections

import (
	"reflect"
	"strings"
	"testing"
)

func name(s string) string { return string(rune(len(s))) + s }

func section(id byte, body string) string { return string([]byte{id, byte(len(body))}) + body }

const header = "\x00asm\x01\x00\x00\x00"

// everything has one of each section that is read.
var everything = header +
	section(1, "\x01\x60\x00\x00") +
	section(2, "\x02"+name("env")+name("proxy_log")+"\x00\x00"+name("env")+name("table")+"\x01\x70\x00\x01") +
	section(3, "\x01\x00") +
	section(5, "\x01\x03\x02\x10") +
	section(7, "\x02"+name("f")+"\x00\x01"+name("memory")+"\x02\x00") +
	section(10, "\x01\x02\x00\x0b") +
	section(11, "\x00") +
	section(0, name("name")+"\x01\x04\x01\x01"+name("f")) +
	section(0, name("producers")+"\x01"+name("language")+"\x01"+name("Go")+name("go1.26"))

func TestRead(t *testing.T) {
	got, err := Read([]byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	want := Module{
		Imports:   []Import{{"env", "proxy_log", Function}, {"env", "table", Table}},
		Exports:   []Export{{"f", Function}, {"memory", MemoryKind}},
		Memory:    &Memory{Min: 2, Max: 16, Bounded: true, Shared: true},
		Functions: 1, CodeBytes: 4, DataBytes: 1, Named: true,
		Custom:    []Custom{{"name", 6}, {"producers", 21}},
		Producers: []Producer{{"language", "Go", "go1.26"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestWhatIsNotAModule(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "not a WASM module",
		"GIF89a..":                              "not a WASM module",
		"\x00asm\x02\x00\x00\x00":               "WASM version 02000000 is not known",
		header + "\x02\x05\x01":                 "unexpected end",
		header + "\x02\x01\x7f":                 "read section 2 at byte 8: unexpected end",
		header + section(2, "\x01\x00\x00\x09"): "import kind 9 is not known",
	} {
		if _, err := Read([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if m, err := Read([]byte("\x00asm\x0d\x00\x01\x00")); err != nil || !m.Component {
		t.Errorf("a component: %+v, %v", m, err)
	}
	// A damaged note is no reason to say nothing of the rest.
	if m, err := Read([]byte(header + section(0, name("producers")+"\x7f"))); err != nil || len(m.Custom) != 1 {
		t.Errorf("a damaged note: %+v, %v", m, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte("\x00asm\x0d\x00\x01\x00"))
	f.Add([]byte(header + "\x0a\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _ := Read(b)
		if len(m.Imports)+len(m.Exports)+len(m.Custom)+len(m.Producers) > len(b) {
			t.Errorf("%d bytes hold more than they can", len(b))
		}
	})
}
