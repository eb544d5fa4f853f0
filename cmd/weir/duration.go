package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// durationFlag adds a flag that takes a duration, and helps those who write one
// in another way.
func durationFlag(flags *pflag.FlagSet, d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	flags.Var((*durationValue)(d), name, usage)
}

type durationValue time.Duration

func (v *durationValue) String() string { return time.Duration(*v).String() }
func (v *durationValue) Type() string   { return "duration" }
func (v *durationValue) Set(s string) error {
	d, err := parseDuration(s)
	if err != nil {
		return err
	}
	*v = durationValue(d)
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return d, nil
	}
	if meant := likelyDuration(s); meant != "" {
		return 0, fmt.Errorf("invalid duration; did you mean %s?", meant)
	}
	return 0, fmt.Errorf("invalid duration; write it as 90s, 5m or 72h")
}

// likelyDuration is what people mean by 3d, 2 weeks, or 30.
func likelyDuration(s string) string {
	s = strings.ReplaceAll(strings.ToLower(s), " ", "")
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || n < 0 || n > 1e6 {
		return ""
	}
	switch unit := s[len(digits):]; unit {
	case "":
		return fmt.Sprintf("%ss", digits)
	case "d", "day", "days":
		return fmt.Sprintf("%dh", int(math.Round(24*n)))
	case "w", "week", "weeks":
		return fmt.Sprintf("%dh", int(math.Round(7*24*n)))
	case "sec", "secs", "second", "seconds", "min", "mins", "minute", "minutes", "hour", "hours":
		return digits + unit[:1]
	}
	return ""
}

// brief is a duration in its biggest unit.
func brief(d time.Duration) string {
	switch {
	case d > 0 && d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d > 0 && d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/1e6)
	case d > 0 && d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
