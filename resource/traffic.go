package resource

import (
	"fmt"
	"math"
	"slices"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Filters that have to do with traffic as a whole: copies of it, its size, and
// what is done to it on purpose.

func (c *check) mirror(at Path, m *weirv1.RequestMirror) {
	if m == nil {
		return
	}
	c.backend(at.Field("backendRef"), m.GetBackendRef())
	if b := m.GetBackendRef(); b != nil && b.Weight != nil {
		c.add(at.Field("backendRef").Field("weight"), "has no meaning here: say with percent or fraction how much is mirrored")
	}
	if m.Percent != nil && m.GetFraction() != nil {
		c.add(at.Field("percent"), "cannot stand beside fraction: give one of the two")
	}
	if m.GetPercent() > 100 {
		c.add(at.Field("percent"), "must be from 0 to 100, not %d", m.GetPercent())
	}
	if f := m.GetFraction(); f != nil {
		denominator := uint32(100)
		if f.Denominator != nil {
			denominator = f.GetDenominator()
		}
		switch at := at.Field("fraction"); {
		case denominator == 0:
			c.add(at.Field("denominator"), "must be at least 1")
		case f.GetNumerator() > denominator:
			c.add(at.Field("numerator"), "must not be more than the denominator, %d", denominator)
		}
	}
}

// codings are those that answers can be compressed with.
var codings = []string{"zstd", "br", "gzip"}

func (c *check) compression(at Path, f *weirv1.Compression) {
	seen := map[string]bool{}
	for i, name := range f.GetAlgorithms() {
		at := at.Field("algorithms").Index(i)
		if !slices.Contains(codings, name) {
			c.add(at, "must be %s, not %q%s", english(codings), name, meant(name, codings))
		}
		c.unique(seen, at, name, "the algorithm")
	}
	types := at.Field("types")
	c.count(types, len(f.GetTypes()), 0, maxEntries, "media type")
	seen = map[string]bool{}
	for i, t := range f.GetTypes() {
		c.syntax(types.Index(i), checkMediaRange(t))
		c.unique(seen, types.Index(i), t, "the media type")
	}
}

// checkMediaRange: type/subtype, type/* or type/*+suffix.
func checkMediaRange(s string) string {
	const form = `"application/json", "text/*" or "application/*+json"`
	kind, subtype, ok := strings.Cut(s, "/")
	rest, wild := strings.CutPrefix(subtype, "*")
	switch {
	case s == "":
		return "is empty; write " + form
	case strings.ToLower(s) != s:
		return fmt.Sprintf("%q must be lower case: %q", s, strings.ToLower(s))
	case !ok || !isToken(kind) || kind == "*":
		return fmt.Sprintf("%q is not a media type such as %s", s, form)
	case wild && (rest == "" || rest[0] == '+' && isToken(rest)):
	case wild || !isToken(subtype):
		return fmt.Sprintf("%q is not a media type such as %s", s, form)
	}
	return ""
}

func (c *check) fault(at Path, f *weirv1.Fault) {
	if f == nil {
		return
	}
	c.headerMatches(at.Field("headers"), f.GetHeaders())
	if f.GetDelay() == nil && f.GetAbort() == nil && f.GetBandwidth() == nil && f.GetDisconnect() == nil {
		c.add(at, "does nothing: give delay, abort, bandwidth or disconnect")
	}
	if d := f.GetDelay(); d != nil {
		at := at.Field("delay")
		c.duration(at.Field("fixed"), d.GetFixed())
		if d.GetFixed().AsDuration() == 0 {
			c.add(at.Field("fixed"), "is required: how long, such as 400ms")
		}
		c.share(at, d.Percent)
	}
	if a := f.GetAbort(); a != nil {
		at := at.Field("abort")
		switch {
		case a.GrpcStatus != nil && a.GetStatus() != 0:
			c.add(at.Field("grpcStatus"), "cannot stand beside status: give one of the two")
		case a.GrpcStatus != nil && a.GetGrpcStatus() > 16:
			c.add(at.Field("grpcStatus"), "must be from 0 to 16, not %d", a.GetGrpcStatus())
		case a.GrpcStatus == nil && (a.GetStatus() < 200 || a.GetStatus() > 599):
			c.add(at.Field("status"), "must be from 200 to 599, not %d", a.GetStatus())
		}
		c.share(at, a.Percent)
	}
	if b := f.GetBandwidth(); b != nil {
		at := at.Field("bandwidth")
		if b.GetBytesPerSecond() == 0 {
			c.add(at.Field("bytesPerSecond"), "is required, and at least 1")
		}
		c.share(at, b.Percent)
	}
	if d := f.GetDisconnect(); d != nil {
		c.share(at.Field("disconnect"), d.Percent)
	}
}

// share: a part of all requests, in percent.
func (c *check) share(at Path, p *float64) {
	if p != nil && (math.IsNaN(*p) || *p < 0 || *p > 100) {
		c.add(at.Field("percent"), "must be from 0 to 100, not %v", *p)
	}
}
