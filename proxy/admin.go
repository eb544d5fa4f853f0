package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"
)

// serveAdmin opens the admin address: metrics, health, debug pages.
func (p *Proxy) serveAdmin() error {
	if p.cfg.AdminAddress == "" {
		return nil
	}
	socket, err := p.cfg.ListenAdmin("tcp", p.cfg.AdminAddress)
	if err != nil {
		return fmt.Errorf("open proxy admin address: %w", err)
	}
	if err := p.cfg.Metrics.Register(&poolCollector{p.pools, p}); err != nil {
		socket.Close()
		return err
	}
	if err := p.cfg.Metrics.Register(&serviceCollector{&p.upstreams}); err != nil {
		socket.Close()
		return err
	}
	if err := p.cfg.Metrics.Register(&overloadCollector{p}); err != nil {
		socket.Close()
		return err
	}
	if err := p.cfg.Metrics.Register(&canaryCollector{p}); err != nil {
		socket.Close()
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", p.cfg.Metrics.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", p.readyz)
	mux.HandleFunc("GET /debug/config", p.debugConfig)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	p.adminOn = socket
	p.admin = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	p.done.Go(func() { _ = p.admin.Serve(socket) })
	return nil
}

// AdminAddr is where the admin address turned out to be, "" for nowhere.
func (p *Proxy) AdminAddr() string {
	if p.adminOn == nil {
		return ""
	}
	return p.adminOn.Addr().String()
}

// readyz: a configuration is in force and all of its sockets are open.
func (p *Proxy) readyz(w http.ResponseWriter, _ *http.Request) {
	revision := p.Revision()
	p.shown.Lock()
	var failing []error
	for _, err := range p.failing {
		failing = append(failing, err)
	}
	refused := p.refused
	p.shown.Unlock()
	if revision == 0 {
		http.Error(w, "no configuration yet", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintf(w, "ok, revision %d\n", revision)
	if p.cfg.Overload.Shedding() {
		fmt.Fprintln(w, "memory is short: new work is turned away")
	}
	if refused != "" {
		fmt.Fprintf(w, "the newest revision was refused: %s\n", refused)
	}
	for _, err := range failing {
		fmt.Fprintln(w, err)
	}
}

// debugConfig shows what the proxy was told, in short.
func (p *Proxy) debugConfig(w http.ResponseWriter, _ *http.Request) {
	p.shown.Lock()
	state := map[string]any{"revision": p.Revision(), "refused": p.refused}
	names := make([]string, 0, len(p.desired.resources))
	for ref := range p.desired.resources {
		names = append(names, ref.String())
	}
	open := make([]string, 0, len(p.bound))
	for k, b := range p.bound {
		open = append(open, k.String())
		if b.quic != nil {
			open = append(open, k.overUDP().String())
		}
	}
	p.shown.Unlock()
	state["resources"], state["listeners"] = names, open
	state["endpoints"], state["services"] = p.health.States(), p.services.Counts()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(state) // the client's connection; nothing to do about it
}
