package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// writeTables prints resources, which come by kind, as a table for each kind.
func writeTables(w io.Writer, resources []*weirv1.Resource, wide, tenants bool) error {
	for from := 0; from < len(resources); {
		kind := resource.KindOf(resources[from])
		to := from
		for to < len(resources) && resource.KindOf(resources[to]) == kind {
			to++
		}
		if from > 0 {
			fmt.Fprintln(w)
		}
		if err := writeKind(w, resources[from:to], wide, tenants); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func writeKind(w io.Writer, resources []*weirv1.Resource, wide, tenants bool) error {
	header, cells := columns(resources[0])
	header = append([]string{strings.ToUpper(resource.KindOf(resources[0]))}, header...)
	if tenants {
		header = append([]string{"TENANT"}, header...)
	}
	header = append(header, "AGE")
	if wide {
		header = append(header, "REVISION", "LABELS")
	}
	rows := make([][]string, len(resources))
	for i, r := range resources {
		meta := resource.Meta(r)
		row := append([]string{meta.GetName()}, cells(r)...)
		if tenants {
			row = append([]string{meta.GetTenant()}, row...)
		}
		row = append(row, age(meta.GetUpdateTime()))
		if wide {
			row = append(row, fmt.Sprint(meta.GetRevision()), labelText(meta.GetLabels()))
		}
		rows[i] = row
	}
	return writeTable(w, header, rows)
}

// columns are what a table shows of a kind.
func columns(r *weirv1.Resource) (header []string, cells func(*weirv1.Resource) []string) {
	switch r.GetKind().(type) {
	case *weirv1.Resource_Gateway:
		return []string{"LISTENERS", "SELECTOR"}, gatewayCells
	case *weirv1.Resource_Certificate:
		return []string{"HOSTNAMES", "SOURCE", "KEY", "EXPIRES"}, certificateCells
	case *weirv1.Resource_Service:
		return []string{"PROTOCOL", "ENDPOINTS", "SUBSETS"}, serviceCells
	case *weirv1.Resource_Route:
		return []string{"PARENTS", "HOSTNAMES", "RULES", "BACKENDS"}, routeCells
	case *weirv1.Resource_Plugin:
		return []string{"DIGEST", "SIZE", "ABI"}, pluginCells
	case *weirv1.Resource_Policy:
		return []string{"PLUGIN", "STAGE", "TARGETS", "ON FAILURE"}, policyCells
	case *weirv1.Resource_PluginTrust:
		return []string{"SIGNATURES", "KEYS"}, pluginTrustCells
	case *weirv1.Resource_Contract:
		return []string{"SIZE"}, contractCells
	case *weirv1.Resource_Api:
		return []string{"VERSION", "STATE", "CONTRACT", "TARGETS"}, apiCells
	case *weirv1.Resource_App:
		return []string{"ORGANIZATION"}, appCells
	case *weirv1.Resource_Credential:
		return []string{"APP", "KEY", "EXPIRES"}, credentialCells
	case *weirv1.Resource_Plan:
		return []string{"APIS", "LIMITS"}, planCells
	case *weirv1.Resource_Subscription:
		return []string{"APP", "PLAN", "STATE"}, subscriptionCells
	case *weirv1.Resource_Instance:
		return []string{"SERVICE", "ADDRESS", "HEALTH"}, instanceCells
	case *weirv1.Resource_AccessRule:
		return []string{"SERVICE", "ALLOWS"}, accessRuleCells
	}
	return nil, func(*weirv1.Resource) []string { return nil }
}

func gatewayCells(r *weirv1.Resource) []string {
	var listeners []string
	for _, l := range r.GetGateway().GetSpec().GetListeners() {
		listeners = append(listeners, fmt.Sprintf("%s:%d/%s", l.GetName(), l.GetPort(), l.GetProtocol()))
	}
	return []string{few(listeners), labelText(r.GetGateway().GetSpec().GetSelector())}
}

func certificateCells(r *weirv1.Resource) []string {
	spec, status := r.GetCertificate().GetSpec(), r.GetCertificate().GetStatus()
	source, expires := "pem", ""
	if spec.GetSelfSigned() != nil {
		source = "selfSigned"
	}
	if spec.GetAcme() != nil {
		source = "acme"
		for _, c := range status.GetConditions() {
			if c.GetType() == "Issued" && c.GetReason() != "Issued" {
				source += " (" + c.GetReason() + ")"
			}
		}
	}
	if t := status.GetNotAfter(); t != nil {
		expires = t.AsTime().Format(time.DateOnly)
	}
	return []string{few(spec.GetHostnames()), source, status.GetKeyType(), expires}
}

func serviceCells(r *weirv1.Resource) []string {
	spec := r.GetService().GetSpec()
	var endpoints, subsets []string
	for _, e := range spec.GetEndpoints() {
		endpoints = append(endpoints, e.GetAddress())
	}
	for _, s := range spec.GetSubsets() {
		subsets = append(subsets, s.GetName())
	}
	protocol := "HTTP"
	if p := spec.GetProtocol(); p != weirv1.ServiceSpec_PROTOCOL_UNSPECIFIED {
		protocol = p.String()
	}
	return []string{protocol, few(endpoints), few(subsets)}
}

func routeCells(r *weirv1.Resource) []string {
	spec := r.GetRoute().GetSpec()
	var parents, backends []string
	for _, p := range spec.GetParentRefs() {
		parents = append(parents, p.GetName())
	}
	seen := map[string]bool{}
	for _, rule := range spec.GetRules() {
		for _, b := range rule.GetBackendRefs() {
			if !seen[b.GetName()] {
				backends = append(backends, b.GetName())
			}
			seen[b.GetName()] = true
		}
	}
	return []string{few(parents), cmp.Or(few(spec.GetHostnames()), "*"), fmt.Sprint(len(spec.GetRules())), few(backends)}
}

func pluginCells(r *weirv1.Resource) []string {
	p := r.GetPlugin()
	return []string{shortDigest(p.GetSpec().GetDigest()), byteText(p.GetStatus().GetSizeBytes()), p.GetStatus().GetAbi()}
}

func contractCells(r *weirv1.Resource) []string {
	return []string{byteText(uint64(len(r.GetContract().GetSpec().GetOpenapi())))}
}

func apiCells(r *weirv1.Resource) []string {
	spec := r.GetApi().GetSpec()
	var targets []string
	for _, t := range spec.GetTargetRefs() {
		targets = append(targets, strings.TrimSuffix(t.GetName()+"/"+t.GetSectionName(), "/"))
	}
	state := spec.GetState()
	if state == weirv1.ApiSpec_STATE_UNSPECIFIED {
		state = weirv1.ApiSpec_DRAFT
	}
	return []string{spec.GetVersion(), state.String(), spec.GetContractRef().GetName(), few(targets)}
}

func appCells(r *weirv1.Resource) []string {
	return []string{r.GetApp().GetSpec().GetOrganization()}
}

func credentialCells(r *weirv1.Resource) []string {
	spec := r.GetCredential().GetSpec()
	expires := "never"
	if t := spec.GetExpireTime(); t != nil {
		expires = t.AsTime().Format(time.RFC3339)
	}
	return []string{spec.GetApp(), spec.GetPrefix() + "…", expires}
}

func planCells(r *weirv1.Resource) []string {
	spec := r.GetPlan().GetSpec()
	var limits []string
	for _, l := range spec.GetLimits() {
		limits = append(limits, fmt.Sprintf("%s: %d/%s", l.GetName(), l.GetRequests(), l.GetWindow().AsDuration()))
	}
	return []string{few(spec.GetApis()), few(limits)}
}

func subscriptionCells(r *weirv1.Resource) []string {
	spec := r.GetSubscription().GetSpec()
	state := spec.GetState()
	if state == weirv1.SubscriptionSpec_STATE_UNSPECIFIED {
		state = weirv1.SubscriptionSpec_ACTIVE
	}
	return []string{spec.GetApp(), spec.GetPlan(), state.String()}
}

func instanceCells(r *weirv1.Resource) []string {
	spec := r.GetInstance().GetSpec()
	health := "healthy"
	if spec.GetUnhealthy() {
		health = "unhealthy"
	}
	return []string{spec.GetService(), spec.GetAddress(), health}
}

func accessRuleCells(r *weirv1.Resource) []string {
	spec := r.GetAccessRule().GetSpec()
	var from []string
	for _, a := range spec.GetAllow() {
		if len(a.GetFrom()) == 0 {
			from = append(from, "everybody")
		}
		from = append(from, a.GetFrom()...)
	}
	return []string{spec.GetService(), few(from)}
}

func policyCells(r *weirv1.Resource) []string {
	spec := r.GetPolicy().GetSpec()
	var targets []string
	for _, t := range spec.GetTargetRefs() {
		target := strings.ToLower(t.GetKind())
		if t.GetName() != "" {
			target += "/" + t.GetName()
		}
		targets = append(targets, target)
	}
	stage, mode := "TRANSFORM", "CLOSED"
	if s := spec.GetStage(); s != weirv1.PolicySpec_STAGE_UNSPECIFIED {
		stage = s.String()
	}
	if m := spec.GetFailureMode(); m != weirv1.PolicySpec_FAILURE_MODE_UNSPECIFIED {
		mode = m.String()
	}
	return []string{pluginOf(spec), stage, few(targets), mode}
}

// pluginOf is what a policy is the use of.
func pluginOf(spec *weirv1.PolicySpec) string {
	if spec.GetWaf() != nil {
		return "(waf)"
	}
	return spec.GetPlugin()
}

func pluginTrustCells(r *weirv1.Resource) []string {
	var names []string
	for _, k := range r.GetPluginTrust().GetSpec().GetKeys() {
		names = append(names, k.GetName())
	}
	required := "optional"
	if r.GetPluginTrust().GetSpec().GetRequireSignatures() {
		required = "required"
	}
	return []string{required, few(names)}
}

// few keeps a cell short.
func few(words []string) string {
	const most = 3
	if len(words) <= most {
		return strings.Join(words, ",")
	}
	return fmt.Sprintf("%s,+%d", strings.Join(words[:most], ","), len(words)-most)
}

func shortDigest(digest string) string {
	const digits = len("sha256:") + 12
	return digest[:min(len(digest), digits)]
}

func byteText(n uint64) string {
	switch {
	case n == 0:
		return ""
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
