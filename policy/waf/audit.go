package waf

import (
	"bytes"
	"context"
	"log/slog"

	"github.com/corazawaf/coraza/v3/types"

	"github.com/weirmesh/weir/proxy/exchange"
)

// What bounds the line of an exchange: its hits, and what clients or rules' authors
// wrote into it.
const (
	maxHits = 64
	maxText = 256
)

// Hit is a rule that matched, as it is logged. No value is part of it: what matched
// may be a password.
type Hit struct {
	Rule     int    `json:"rule"`
	Message  string `json:"message,omitempty"`
	Severity string `json:"severity,omitempty"`
	// Variable is the part of the exchange, such as ARGS:q.
	Variable string `json:"variable,omitempty"`
}

// hits are those of one exchange. They travel through the engine as the context of
// the filter's transaction.
type hits struct {
	context.Context
	list  []Hit
	count int
	meter *meter
}

type hitsKey struct{}

// Value implements context.Context.
func (h *hits) Value(key any) any {
	if key == (hitsKey{}) {
		return h
	}
	return h.Context.Value(key)
}

func (h *hits) reset() {
	clear(h.list)
	h.list, h.count = h.list[:0], 0
}

// hit is called by the engine for each match that is to be logged.
func hit(m types.MatchedRule) {
	within, ok := m.(interface{ Context() context.Context })
	if !ok {
		return
	}
	h, ok := within.Context().Value(hitsKey{}).(*hits)
	if !ok {
		return
	}
	id := m.Rule().ID()
	h.meter.hit(id)
	if h.count++; h.count > maxHits {
		return
	}
	variable := ""
	if of := m.MatchedDatas(); len(of) > 0 {
		if variable = of[0].Variable().Name(); of[0].Key() != "" {
			variable += ":" + of[0].Key()
		}
	}
	h.list = append(h.list, Hit{Rule: id, Message: shorten(m.Message(), maxText), Severity: m.Rule().Severity().String(), Variable: shorten(variable, maxText)})
}

// audit writes an exchange's line, if there is something to tell.
func (f *filter) audit(x *exchange.Exchange) {
	if f.action == passed {
		return
	}
	level, status := slog.LevelInfo, x.Response.Status
	if f.action != detected {
		level = slog.LevelWarn
	}
	path, _, _ := bytes.Cut(x.Request.Path, []byte{'?'})
	f.policy.host.logger.LogAttrs(context.Background(), level, "firewall",
		slog.String("action", f.action.String()),
		slog.String("policy", f.policy.spec.Tenant+"/"+f.policy.spec.Name),
		slog.String("request_id", string(x.ID)),
		slog.String("route", x.Route), slog.String("route_rule", x.Rule),
		slog.String("client", x.Client.Addr().String()),
		slog.String("method", shorten(string(x.Request.Method), maxText)),
		slog.String("path", shorten(string(path), 4*maxText)),
		slog.Int("status", status),
		slog.String("score", f.score), slog.String("outbound_score", f.outbound),
		slog.Int("hits", f.hits.count), slog.Any("rules", f.hits.list),
	)
}
