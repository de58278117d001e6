%%% Tells an external component (XEP-0114) what happens on this server, so that
%%% nothing is lost: messages, presence, sessions and rooms, numbered and
%%% acknowledged. The protocol is urn:eventpusher:feed:1.
%%%
%%% This module starts and stops the feed and holds the hooks for users' sessions,
%%% which run in the sessions' own processes, and for the component.
-module(mod_event_feed).

-behaviour(gen_mod).

-export([start/2, stop/1, reload/3, depends/2, mod_opt_type/1, mod_options/1, mod_doc/0]).
-export([pre_uninstall/0]).
-export([hosts/0, all_hosts/0, is_served/1, tell/5]).
-export([opened/1, self_presence/1, handed_over/1, pending/1, resumed/1, copied/2, sent/3, asked/2, terminated/2, account_removed/2,
	 component_connected/1, component_send/1, to_host/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_event_feed.hrl").

%% Elements within elements of a stanza. ejabberd's encoder of XML recurses: between 3000
%% and 4000 of them ended the whole server (23.01). The component reads no more than
%% 1000. A deeper stanza is left out, and the component records the event.
-define(MOST_DEPTH, 1000).

%%% gen_mod

start(Host, Opts) ->
    mod_event_feed_rooms:start(Host),
    mod_event_feed_messages:start(Host),
    _ = [ejabberd_hooks:add(Hook, Host, ?MODULE, Function, Seq) || {Hook, Function, Seq} <- hooks()],
    _ = [ejabberd_hooks:add(Hook, ?MODULE, Function, Seq) || {Hook, Function, Seq} <- global_hooks()],
    case mod_event_feed_source:ensure_started(Opts) of
	ok -> mod_event_feed_source:host_up(Host);
	{error, _} = Err -> Err
    end.

stop(Host) ->
    _ = [ejabberd_hooks:delete(Hook, Host, ?MODULE, Function, Seq) || {Hook, Function, Seq} <- hooks()],
    mod_event_feed_rooms:stop(Host),
    mod_event_feed_messages:stop(Host),
    case gen_mod:is_loaded_elsewhere(Host, ?MODULE) of
	true ->
	    mod_event_feed_source:host_down(Host);
	false ->
	    _ = [ejabberd_hooks:delete(Hook, ?MODULE, Function, Seq) || {Hook, Function, Seq} <- global_hooks()],
	    mod_event_feed_source:stop()
    end.

reload(_Host, NewOpts, _OldOpts) ->
    mod_event_feed_source:reload(NewOpts).

%% pre_uninstall is called by module_uninstall and module_upgrade, which
%% would leave all parts but this one in memory.
pre_uninstall() ->
    _ = [gen_mod:stop_module(Host, ?MODULE) || Host <- hosts()],
    lists:foreach(fun(Part) ->
			  _ = code:purge(Part),
			  _ = code:delete(Part)
		  end, [mod_event_feed_intake, mod_event_feed_messages, mod_event_feed_missed, mod_event_feed_options,
			mod_event_feed_ring, mod_event_feed_rooms,
			mod_event_feed_sessions, mod_event_feed_source, mod_event_feed_spool,
			mod_event_feed_window, mod_event_feed_wire]).

depends(_Host, _Opts) ->
    [].

%% Each comes after the hook of ejabberd's own modules that decides about the session:
%% mod_stream_mgmt (50) and mod_push (55), but ends of sessions before mod_stream_mgmt
%% (50) gives their unacknowledged stanzas away. With an available presence mod_offline
%% (50) hands over, in the session's process, what it has stored.
hooks() ->
    [{c2s_session_opened, opened, 50},
     {c2s_self_presence, self_presence, 40},
     {c2s_self_presence, handed_over, 60},
     {c2s_session_pending, pending, 60},
     {c2s_session_resumed, resumed, 60},
     {c2s_copy_session, copied, 50},
     {c2s_handle_send, sent, 60},
     {c2s_handle_info, asked, 40},
     {c2s_terminated, terminated, 40},
     {remove_user, account_removed, 90},
     {local_send_to_resource_hook, to_host, 40}].

global_hooks() ->
    [{component_connected, component_connected, 50},
     {component_send_packet, component_send, 20}].

mod_opt_type(Option) -> mod_event_feed_options:type(Option).

mod_options(_Host) -> mod_event_feed_options:defaults().

mod_doc() -> mod_event_feed_options:doc().

%%% For the other parts

%% hosts lists the virtual hosts that the module runs on, the first one first.
-spec hosts() -> [binary()].
hosts() ->
    [Host || Host <- ejabberd_option:hosts(), is_served(Host)].

%% all_hosts lists the virtual hosts and the hosts of their rooms.
-spec all_hosts() -> [binary()].
all_hosts() ->
    Hosts = hosts(),
    Hosts ++ lists:usort(lists:flatmap(fun mod_event_feed_rooms:hosts/1, Hosts)).

%% is_served says whether the module runs on a virtual host, so that what its
%% users send is reported when they send it.
-spec is_served(binary()) -> boolean().
is_served(Host) ->
    gen_mod:is_loaded(Host, ?MODULE).

%% tell reports an event. A stanza that cannot be encoded is lost alone, and
%% what it says does not get into the log.
-spec tell(binary(), binary(), undefined | jid(), [{binary(), binary()}], none | stanza()) -> ok.
tell(Kind, Host, User, Attrs, Stanza) ->
    tell(Kind, Host, User, Attrs, Stanza, none).

tell(Kind, Host, User, Attrs, Stanza, Session) ->
    try mod_event_feed_intake:tell(fact(Kind, Host, User, Attrs, Stanza, Session))
    catch
	Class:_:Stack ->
	    ?ERROR_MSG("Cannot report an event of kind ~ts: ~p at ~p",
		       [Kind, Class, [{M, F, L} || {M, F, _, L} <- Stack]])
    end.

fact(Kind, Host, User, Attrs, Stanza, Session) ->
    #fact{kind = Kind, host = Host, user = address(User), t = erlang:system_time(millisecond),
	  attrs = Attrs, session = Session, stanza = encoded(Stanza)}.

address(undefined) -> undefined;
address(User) -> jid:encode(User).

encoded(none) ->
    none;
encoded(Stanza) ->
    El = xmpp:encode(Stanza),
    case is_flat(El, ?MOST_DEPTH) of
	true -> term_to_binary(El);
	false -> none
    end.

is_flat(#xmlel{children = Els}, Depth) ->
    Depth > 0 andalso lists:all(fun(El) -> is_flat(El, Depth - 1) end, Els);
is_flat(_Text, _Depth) ->
    true.

%%% Sessions

opened(#{jid := JID} = State) ->
    session(<<"session-start">>, opened, JID, [], none),
    State.

session(Kind, Change, #jid{lserver = Host} = JID, Attrs, Stanza) ->
    tell(Kind, Host, JID, Attrs, Stanza, {Change, jid:tolower(JID), self()}).

%% The session's own undirected presence, before the server acts on it.
self_presence({#presence{type = available} = Presence, #{jid := JID} = State} = Acc) ->
    Kind = case State of
	       #{pres_last := _} -> <<"presence">>;
	       _ -> <<"online">>
	   end,
    session(Kind, available, JID, [], Presence#presence{to = undefined}),
    mod_event_feed_messages:handing_over(),
    Acc;
self_presence({#presence{type = unavailable} = Presence, #{jid := JID, pres_last := _}} = Acc) ->
    session(<<"offline">>, unavailable, JID, [], Presence#presence{to = undefined}),
    Acc;
self_presence(Acc) ->
    Acc.

handed_over(Acc) ->
    mod_event_feed_messages:handed_over(),
    Acc.

%% terminated is the end of a session's process, whatever its cause. If the
%% session was resumed, it lives on in another one.
terminated(#{mgmt_state := resumed} = State, _Reason) ->
    State;
terminated(#{jid := JID, sid := _} = State, _Reason) ->
    _ = [tell(<<"message-failed">>, JID#jid.lserver, JID, [], Message) || {_, Message} <- unacked(State)],
    End = fact(<<"session-end">>, JID#jid.lserver, JID, [{<<"reason">>, reason(State)}], none, none),
    mod_event_feed_source:session_ended({jid:tolower(JID), self()}, End),
    State;
terminated(State, _Reason) ->
    State.

%% reason gives the condition of the stream error (RFC 6120 section 4.9.3) if
%% there was one.
reason(#{stop_reason := {stream, {_, #stream_error{reason = Reason}}}}) when is_atom(Reason) ->
    atom_to_binary(Reason, utf8);
reason(#{stop_reason := {stream, reset}}) -> <<"closed">>;
reason(#{stop_reason := {socket, _}}) -> <<"connection-lost">>;
reason(#{stop_reason := {tls, _}}) -> <<"connection-lost">>;
reason(_State) -> <<"server">>.

%% asked answers a source that is younger than the session.
asked(#{jid := JID, sid := _} = State, {mod_event_feed, report}) ->
    Presence = case State of
		   #{pres_last := Last} -> Last#presence{to = undefined};
		   _ -> none
	       end,
    Fact = fact(<<"snapshot">>, JID#jid.lserver, JID, [], Presence, none),
    mod_event_feed_source:session_reported({jid:tolower(JID), self()}, Fact),
    {stop, State};
asked(State, {mod_event_feed, report}) ->
    {stop, State};
asked(State, _Info) ->
    State.

%% account_removed is before ejabberd_sm (100) ends the sessions of the account. It runs
%% in the process that removes it, on one node.
account_removed(LUser, LServer) ->
    tell(<<"account-removed">>, LServer, jid:make(LUser, LServer), [], none).

%%% Stream management (XEP-0198)

%% The connection is lost, the session waits.
pending(#{jid := JID} = State) ->
    Unacked = unacked(State),
    session(<<"hibernate">>, hibernated, JID, count(Unacked), none),
    Told = maps:get(mod_event_feed_told, State, 0),
    State#{mod_event_feed_told =>
	       lists:foldl(fun({N, Message}, _) when N > Told ->
				   tell(<<"message-unacked">>, JID#jid.lserver, JID, mod_event_feed_messages:contact(Message, JID), Message),
				   N;
			      (_, Last) -> Last
			   end, Told, Unacked)}.

%% What a waiting session is sent; mod_stream_mgmt has just numbered it.
sent(#{mgmt_state := pending, mgmt_stanzas_out := N, jid := JID} = State, #message{} = Message, _Result) ->
    case mod_event_feed_messages:is_reportable(Message) of
	true ->
	    tell(<<"message-unacked">>, JID#jid.lserver, JID, mod_event_feed_messages:contact(Message, JID), Message),
	    State#{mod_event_feed_told => N};
	false ->
	    State
    end;
sent(State, _Packet, _Result) ->
    State.

resumed(#{jid := JID} = State) ->
    session(<<"resumed">>, resumed, JID, count(unacked(State)), none),
    State.

%% The numbers of the stanzas go on in the process that takes the session over.
copied(State, #{mod_event_feed_told := N}) -> State#{mod_event_feed_told => N};
copied(State, _Old) -> State.

%% unacked lists the messages that wait for an acknowledgement, with their numbers.
unacked(#{mgmt_state := MgmtState, mgmt_queue := Queue}) when MgmtState /= inactive ->
    lists:reverse(p1_queue:foldl(fun({N, _Time, #message{} = Message}, Acc) ->
					 [{N, Message} || mod_event_feed_messages:is_reportable(Message)] ++ Acc;
				    (_, Acc) -> Acc
				 end, [], Queue));
unacked(_State) ->
    [].

count(Messages) ->
    [{<<"unacked">>, integer_to_binary(length(Messages))}].

%%% The component

%% Runs in the process of the component's connection.
component_connected(Component) ->
    mod_event_feed_source:component_connected(Component, self()).

%% component_send is before mod_privilege (50), which may run user_send_packet for
%% what a component writes in a user's name (XEP-0356).
component_send(Acc) ->
    mod_event_feed_messages:of_component(),
    control(Acc).

%% control sees what comes over a component's own connection and nothing
%% else, so neither users nor other servers can pretend to be it. The name that
%% the connection has proved is compared too: with check_from off, or with
%% several names at one listener, a component may write another's.
control({#message{type = Type, from = #jid{luser = <<>>, lserver = Component, lresource = <<>>},
			 to = #jid{luser = <<>>, lserver = Host, lresource = <<>>},
			 sub_els = [#xmlel{name = Verb} = El]},
		#{remote_server := Component} = State} = Acc) when Type /= error ->
    case is_control(El) andalso mod_event_feed_intake:belongs_to(Component)
	andalso lists:member(Host, all_hosts()) of
	true ->
	    mod_event_feed_source:control(self(), Verb, attr(<<"source">>, El), attr(<<"epoch">>, El),
					  (args(El))#{host => Host}),
	    {stop, {drop, State}};
	false ->
	    Acc
    end;
control(Acc) ->
    Acc.

args(El) ->
    maps:from_list([{seq, number(Text)} || Text <- [attr(<<"seq">>, El)], Text /= undefined]
		   ++ [{Key, Text} || {Key, Text} <- [{id, attr(<<"id">>, El)}, {token, attr(<<"token">>, El)}],
				      is_binary(Text), byte_size(Text) > 0, byte_size(Text) =< 128]).

number(Text) ->
    try binary_to_integer(Text) of
	N when N >= 1, N < 1 bsl 63, byte_size(Text) =< 19 -> N;
	_ -> invalid
    catch
	error:badarg -> invalid
    end.

%% Whatever asks for the same in any other way is a stranger's.
to_host(#message{type = Type, sub_els = Els}) when Type /= error ->
    case lists:any(fun is_control/1, Els) of
	true ->
	    mod_event_feed_intake:count_ignored(),
	    stop;
	false ->
	    ok
    end;
to_host(_Packet) ->
    ok.

is_control(#xmlel{} = El) -> attr(<<"xmlns">>, El) == ?NS_EVENT_FEED;
is_control(_El) -> false.

attr(Name, #xmlel{attrs = Attrs}) ->
    proplists:get_value(Name, Attrs).
