%%% The stanzas of the protocol and their way to the component's stream.
-module(mod_event_feed_wire).

-export([hello/4, event/6, lost/7, kept/1, size_of/1, send/2, connections/1]).

-include("xmpp.hrl").
-include("ejabberd_router.hrl").
-include("mod_event_feed.hrl").

%% What an event takes beside its texts, roughly.
-define(OVERHEAD, 200).

%% hello comes from one of the hosts. An epoch before this one has always ended
%% without a clean stop: after a clean one it goes on.
-spec hello(binary(), [binary()], jid(), map()) -> message().
hello(Host, Hosts, Component, #{source := Source, epoch := Epoch, previous := Previous,
				first := First, next := Next}) ->
    Before = [[{<<"prev-epoch">>, Previous}, {<<"clean">>, <<"false">>}] || Previous /= none],
    Attrs = [{<<"source">>, Source}, {<<"epoch">>, Epoch},
	     {<<"first">>, integer_to_binary(First)}, {<<"next">>, integer_to_binary(Next)},
	     {<<"hosts">>, iolist_to_binary(lists:join($\s, Hosts))},
	     {<<"server">>, <<"ejabberd ", (ejabberd_option:version())/binary, ", mod_event_feed ",
			  (integer_to_binary(?REVISION))/binary>>},
	     {<<"token">>, <<"true">>}],
    message(Host, Component, [tag(<<"hello">>, lists:append([Attrs | Before]))]).

%% event wraps an event. Suspect is one that was on its way when a connection
%% ended: it may be the cause.
-spec event(jid(), binary(), binary(), [{binary(), binary()}], #kept{}, boolean()) -> message().
event(Component, Source, Epoch, Token, #kept{seq = Seq, kind = Kind, host = Host, user = User, t = T,
					     attrs = Attrs, stanza = Stanza}, Suspect) ->
    Common = [{<<"source">>, Source}, {<<"epoch">>, Epoch}, {<<"seq">>, integer_to_binary(Seq)},
	      {<<"kind">>, Kind} | Token],
    Named = [{<<"user">>, User} || User /= undefined] ++ Attrs ++ [{<<"t">>, seconds(T)}],
    message(Host, Component, [tag(<<"event">>, Common ++ Named) | forwarded(Stanza, Suspect)]).

-spec lost(binary(), jid(), binary(), binary(), [{binary(), binary()}], pos_integer(), pos_integer()) ->
	  message().
lost(Host, Component, Source, Epoch, Token, From, To) ->
    message(Host, Component,
	    [tag(<<"lost">>, [{<<"source">>, Source}, {<<"epoch">>, Epoch},
			      {<<"from">>, integer_to_binary(From)}, {<<"to">>, integer_to_binary(To)} | Token])]).

%% kept is an event in the form in which it is kept, before it has its number.
-spec kept(#fact{}) -> #kept{}.
kept(#fact{kind = Kind, host = Host, user = User, t = T, attrs = Attrs, stanza = Stanza} = Fact) ->
    #kept{seq = 1, size = size_of(Fact), kind = Kind, host = Host, user = User, t = T, attrs = Attrs,
	  stanza = Stanza}.

%% size_of is what an event counts for in the bounds, in bytes.
-spec size_of(#fact{}) -> pos_integer().
size_of(#fact{user = User, attrs = Attrs, stanza = Stanza}) ->
    Texts = [Text || Text <- [User, Stanza], is_binary(Text)],
    lists:foldl(fun({_, Value}, Sum) -> byte_size(Value) + Sum end,
		?OVERHEAD + iolist_size(Texts), Attrs).

forwarded(none, _Suspect) ->
    [];
forwarded(Stanza, Suspect) ->
    El = binary_to_term(Stanza),
    Sound = not Suspect orelse is_xml(El),
    [#xmlel{name = <<"forwarded">>, attrs = [{<<"xmlns">>, ?NS_FORWARD}],
	    children = [El || Sound]}].

%% A module of the server may make a stanza that is no XML. It would end the
%% stream again and again; without it the component records the event.
is_xml(El) ->
    try fxml_stream:parse_element(fxml:element_to_binary(El)) of
	#xmlel{} -> true;
	{error, _} -> false
    catch
	_:_ -> false
    end.

message(Host, Component, Els) ->
    #message{from = #jid{server = Host, lserver = Host}, to = Component, sub_els = Els}.

tag(Name, Attrs) ->
    #xmlel{name = Name, attrs = [{<<"xmlns">>, ?NS_EVENT_FEED} | Attrs]}.

seconds(T) ->
    iolist_to_binary([integer_to_binary(T div 1000), $.,
		      string:pad(integer_to_list(T rem 1000), 3, leading, $0)]).

%% send goes straight to the process of a connection. The router would look for
%% another server of the component's name, or bounce, if it went away just now.
-spec send(pid(), message()) -> ok.
send(Pid, Message) ->
    _ = ejabberd_cluster:send(Pid, {route, Message}),
    ok.

%% connections are a component's; there should be one. The router exports no
%% function for this; its backends do.
-spec connections(binary()) -> [pid()].
connections(Component) ->
    Backend = list_to_existing_atom("ejabberd_router_" ++ atom_to_list(ejabberd_option:router_db_type())),
    case Backend:find_routes(Component) of
	{ok, Routes} -> [Pid || #route{pid = Pid} <- Routes, is_pid(Pid),
				node(Pid) /= node() orelse is_process_alive(Pid)];
	_ -> []
    end.
