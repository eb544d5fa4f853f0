package proxy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// apisOn returns the Apis that a rule of a route is of, by name.
func (d *desired) apisOn(route resource.Ref, rule string) []*weirv1.Api {
	var on []*weirv1.Api
	for user := range d.users[route] {
		a := d.resources[user].GetApi()
		if resource.Attachment(a.GetSpec().GetTargetRefs(), route, rule) != nil {
			on = append(on, a)
		}
	}
	slices.SortFunc(on, func(a, b *weirv1.Api) int {
		return strings.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName())
	})
	return on
}

// operation adds what says which operation of which Api is called.
func (m *chainMaker) operation(ctx context.Context, a *weirv1.Api) {
	if document, ok := m.document(a); ok {
		m.api(ctx, a, policy.Operation, document)
	}
}

// lifecycle adds what a version does that is not simply published.
func (m *chainMaker) lifecycle(ctx context.Context, a *weirv1.Api) {
	if m.err == nil && a.GetSpec().GetState() != weirv1.ApiSpec_PUBLISHED {
		m.api(ctx, a, policy.Lifecycle, "")
	}
}

// keys adds who may call a version, where it asks.
func (m *chainMaker) keys(ctx context.Context, a *weirv1.Api) {
	if m.err == nil && a.GetSpec().GetAuthentication() != nil {
		m.api(ctx, a, policy.APIKey, "")
	}
}

// contract adds the checks of a version that is served.
func (m *chainMaker) contract(ctx context.Context, a *weirv1.Api) {
	v := a.GetSpec().GetValidation()
	off := v.GetRequest() == weirv1.ApiValidation_OFF && v.GetResponse() <= weirv1.ApiValidation_OFF
	if m.err != nil || a.GetSpec().GetContractRef() == nil || off {
		return
	}
	if document, ok := m.document(a); ok {
		m.api(ctx, a, policy.Contract, document)
	}
}

// document is the text of an Api's contract, "" where it has none.
func (m *chainMaker) document(a *weirv1.Api) (text string, ok bool) {
	if m.err != nil || a.GetSpec().GetContractRef() == nil {
		return "", m.err == nil
	}
	ref := resource.Ref{Kind: resource.KindContract, Tenant: resource.Of(resource.Wrap(a)).Tenant, Name: a.GetSpec().GetContractRef().GetName()}
	declared := m.proxy.desired.resources[ref].GetContract()
	if declared == nil {
		m.err = fmt.Errorf("api %s: %s is not there", a.GetMetadata().GetName(), ref)
		return "", false
	}
	return declared.GetSpec().GetOpenapi(), true
}

func (m *chainMaker) api(ctx context.Context, a *weirv1.Api, native, document string) {
	settings, err := proto.MarshalOptions{Deterministic: true}.Marshal(a.GetSpec())
	if err != nil {
		m.err = fmt.Errorf("api %s: %w", a.GetMetadata().GetName(), err)
		return
	}
	made, err := m.proxy.cfg.Policies.Make(ctx, policy.Spec{
		Tenant: resource.Of(resource.Wrap(a)).Tenant, Name: a.GetMetadata().GetName(), Native: native,
		Config: string(settings), Document: document, FailureMode: weirv1.PolicySpec_CLOSED,
	}, nil)
	m.add(a.GetMetadata().GetName(), made, err)
}
