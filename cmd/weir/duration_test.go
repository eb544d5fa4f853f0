package main

import (
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "0": 0} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%s: got %s, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"3d": "did you mean 72h?", "1.5 days": "did you mean 36h?", "2w": "did you mean 336h?", "30": "did you mean 30s?",
		"5 minutes": "did you mean 5m?", "soon": "write it as", "": "write it as", "3x": "write it as", "-3d": "write it as", "d": "write it as",
	} {
		if got, err := parseDuration(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %s, %v, want %q", text, got, err, want)
		}
	}
}

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 160 * time.Microsecond: "160µs", 3300 * time.Microsecond: "3.3ms", 40 * time.Millisecond: "40ms", 59 * time.Second: "59s",
		90 * time.Second: "1m", 47 * time.Hour: "47h", 80 * time.Hour: "3d",
	} {
		if got := brief(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}

func TestDeadAfter(t *testing.T) {
	for text, want := range map[string]string{"": "72h0m0s", "off": "off", "24h": "24h0m0s"} {
		var d deadAfter
		if text != "" {
			if err := d.Set(text); err != nil {
				t.Error(err)
			}
		}
		if got := d.String(); got != want {
			t.Errorf("%q: got %s", text, got)
		}
	}
}
