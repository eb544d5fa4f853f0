package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weirmesh/weir/policy/plugintest"
	"github.com/weirmesh/weir/policy/wasm"
)

// writeValue prints what is no message as JSON or YAML.
func writeValue(w io.Writer, f format, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	if f == formatYAML {
		var plain yaml.Node // JSON is YAML: so the fields stay in order
		if err := yaml.Unmarshal(text, &plain); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
		inBlocks(&plain)
		encoder := yaml.NewEncoder(w)
		encoder.SetIndent(2)
		return encoder.Encode(&plain)
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}

func inBlocks(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		inBlocks(child)
	}
}

// writeInspection says what a module is. Wide also lists the imports that need
// no mention.
func writeInspection(w io.Writer, file string, in *plugintest.Inspection, wide bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", what, fmt.Sprintf(format, args...))
	}
	line("file", "%s, %s", file, sizeText(uint64(in.Size)))
	line("digest", "%s", in.Digest)
	line("ABI", "%s", in.Speaks())
	if in.Kind == "module" {
		line("toolchain", "%s", orNothing(strings.Join(in.Toolchain, ", "), "the module does not say"))
		line("memory", "%s", memoryText(in.Memory))
		line("code", "%d functions, %s; data %s; %s", in.Functions, sizeText(uint64(in.CodeBytes)), sizeText(uint64(in.DataBytes)), namesText(in.Named))
		line("callbacks", "%s", orNothing(strings.Join(shortCallbacks(in.Callbacks), ", "), "none"))
		if len(in.Ignored) > 0 {
			line("not called", "%s", strings.Join(shortCallbacks(in.Ignored), ", "))
		}
		line("WASI", "%s", wasiText(in.WASI))
		line("imports", "%d: %d supported, %d not offered, %d unknown", len(in.Imports),
			in.Count(wasm.Supported), in.Count(wasm.NotOffered), in.Count(wasm.Unknown))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, i := range in.Imports {
		if wide || i.Support != wasm.Supported {
			fmt.Fprintf(w, "  %-11s  %s.%s", i.Support, i.Module, i.Name)
			if i.Kind != "function" {
				fmt.Fprintf(w, " (a %s)", i.Kind)
			}
			if i.About != "" && wide {
				fmt.Fprintf(w, ": %s", i.About)
			}
			fmt.Fprintln(w)
		}
	}
	if in.Accepted {
		_, err := fmt.Fprintln(w, "weir plugin push would take it")
		return err
	}
	_, err := fmt.Fprintf(w, "weir plugin push would refuse it: %s\n", in.Refused)
	return err
}

func orNothing(text, instead string) string {
	if text == "" {
		return instead
	}
	return text
}

func shortCallbacks(names []string) (short []string) {
	for _, name := range names {
		short = append(short, strings.TrimPrefix(name, "proxy_"))
	}
	return short
}

func memoryText(m *plugintest.Memory) string {
	if m == nil {
		return "none"
	}
	text := sizeText(m.Min) + " at its start"
	if m.Max > 0 {
		text += ", at most " + sizeText(m.Max)
	}
	if m.Shared {
		text += ", shared between threads"
	}
	return text
}

func namesText(named bool) string {
	if named {
		return "with names"
	}
	return "without names (a trap cannot say where it happened)"
}

func wasiText(functions []string) string {
	if len(functions) == 0 {
		return "not used"
	}
	return fmt.Sprintf("%d functions: %s", len(functions), strings.Join(functions, ", "))
}

// sizeText is in the unit that fits.
func sizeText(n uint64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// writeResult prints a case as it ends; one that failed with all that may help.
func writeResult(w io.Writer, r *plugintest.Result, verbose bool) {
	place := fmt.Sprintf("%s:%d", r.File, r.Line)
	if r.OK {
		fmt.Fprintf(w, "ok    %s  %s  (%d fuel)\n", place, r.Name, r.Fuel)
	} else {
		fmt.Fprintf(w, "FAIL  %s  %s\n", place, r.Name)
		for _, problem := range r.Problems {
			fmt.Fprintln(w, indent(problem, "      "))
		}
		if len(r.Stack) > 0 {
			fmt.Fprintln(w, "      where it trapped, innermost first:")
			fmt.Fprintln(w, indent(strings.Join(r.Stack, "\n"), "        "))
			if nameless(r.Stack) {
				fmt.Fprintln(w, "      the module has no names: weir plugin build --debug keeps them")
			}
		}
	}
	if (verbose || !r.OK) && len(r.Log) > 0 {
		fmt.Fprintln(w, "      it logged:")
		fmt.Fprintln(w, indent(strings.Join(r.Log, "\n"), "        "))
	}
}

func nameless(stack []string) bool {
	for _, frame := range stack {
		if !strings.HasPrefix(frame, "function ") {
			return false
		}
	}
	return true
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(text, "\n", "\n"+by)
}

func writeMeasurement(w io.Writer, m *plugintest.Measurement) error {
	var rows [][]string
	for _, c := range m.Cases {
		rows = append(rows, []string{c.Name, micros(c.Time), micros(c.Least) + "…" + micros(c.Most), fmt.Sprint(c.Fuel), fmt.Sprint(c.Exchanges)})
	}
	if err := writeTable(w, []string{"CASE", "µS/REQUEST", "ROUNDS", "FUEL", "REQUESTS"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\ncompile %s, start of a VM %s, memory of a VM %s\n", millis(m.Compile), millis(m.Start), sizeText(m.MemoryBytes))
	return err
}

func micros(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Nanoseconds())/1e3) }
func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Nanoseconds())/1e6) }
