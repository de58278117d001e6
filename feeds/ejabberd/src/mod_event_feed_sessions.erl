%%% The sessions of this node as the events tell them, for snapshots and for the
%%% order in which one session takes the place of another: a client that comes
%%% back under its old resource binds before the old session has ended, and what
%%% the old one says afterwards would look like the end of the new one.
-module(mod_event_feed_sessions).

-export([new/0, change/3, ended/4, gone/3, reported/4, ask/2, slice/3, leave/1, save/1, restore/2]).

-include("xmpp.hrl").
-include("ejabberd_sm.hrl").
-include("mod_event_feed.hrl").

-record(known, {ljid :: ljid(),
		  pid :: pid(),
		  host :: binary(),
		  user :: binary(),
		  presence = none :: none | binary()}).

-opaque sessions() :: ets:tid().
-type cursor() :: start | ljid().
-opaque saved() :: {term(), [#known{}]}.
-export_type([sessions/0, cursor/0, saved/0]).

-spec new() -> sessions().
new() ->
    ets:new(?MODULE, [ordered_set, private, {keypos, #known.ljid}]).

%% change follows an event. It returns the events that come before it, and
%% whether the event itself counts.
-spec change(session_change(), #fact{}, sessions()) -> {[#fact{}], boolean()}.
change(none, _Fact, _Tab) ->
    {[], true};
change({opened, LJID, Pid}, #fact{host = Host, user = User, t = T}, Tab) ->
    Before = case ets:lookup(Tab, LJID) of
		 [#known{pid = Other} = Old] when Other /= Pid -> end_of(Old, T, <<"conflict">>);
		 _ -> []
	     end,
    insert(#known{ljid = LJID, pid = Pid, host = Host, user = User}, Tab),
    {Before, true};
change({What, LJID, Pid}, Fact, Tab) ->
    case ets:lookup(Tab, LJID) of
	[#known{pid = Pid} = Session] -> {[], changed(What, Fact, Session, Tab)};
	[#known{} = Session] when What == resumed ->
	    {[], insert(Session#known{pid = Pid}, Tab)};
	[#known{}] ->
	    {[], false};
	[] when What == available ->
	    Session = session(LJID, Pid, Fact),
	    insert(Session, Tab),
	    {[], changed(What, Fact, Session, Tab)};
	[] ->
	    _ = [Pid ! {mod_event_feed, report} || What == resumed],
	    {[], true}
    end.

changed(available, Fact, Session, Tab) ->
    ets:insert(Tab, Session#known{presence = presence(Fact)});
changed(unavailable, _Fact, #known{presence = none}, _Tab) ->
    false;
changed(unavailable, _Fact, Session, Tab) ->
    ets:insert(Tab, Session#known{presence = none});
changed(_What, _Fact, _Session, _Tab) ->
    true.

%% insert adds a session, or gives it another process, and watches that. A process
%% that is killed cannot say so.
insert(#known{ljid = LJID, pid = Pid} = Session, Tab) ->
    _ = erlang:monitor(process, Pid, [{tag, {gone, LJID}}]),
    ets:insert(Tab, Session).

%% ended forgets a session and returns the events of its end, none if another
%% session has taken its place.
-spec ended(ljid(), pid(), #fact{}, sessions()) -> [#fact{}].
ended(LJID, Pid, #fact{t = T, attrs = Attrs}, Tab) ->
    ended(LJID, Pid, T, proplists:get_value(<<"reason">>, Attrs), Tab).

%% gone is the same for a process that has ended without a word.
-spec gone(ljid(), pid(), sessions()) -> [#fact{}].
gone(LJID, Pid, Tab) ->
    ended(LJID, Pid, erlang:system_time(millisecond), <<"server">>, Tab).

ended(LJID, Pid, T, Reason, Tab) ->
    case ets:lookup(Tab, LJID) of
	[#known{pid = Pid} = Session] ->
	    ets:delete(Tab, LJID),
	    end_of(Session, T, Reason);
	_ ->
	    []
    end.

%% reported adds a session that is older than the table.
-spec reported(ljid(), pid(), #fact{}, sessions()) -> boolean().
reported(LJID, Pid, Fact, Tab) ->
    Session = session(LJID, Pid, Fact),
    not ets:member(Tab, LJID) andalso insert(Session#known{presence = Fact#fact.stanza}, Tab).

%% ask makes the sessions of a host that are older than the table report
%% themselves, and returns their processes.
-spec ask(binary(), sessions()) -> [pid()].
ask(Host, Tab) ->
    Pids = [Pid || #session{usr = {_, Server, _} = LJID, sid = {_, Pid}}
		       <- ejabberd_sm:dirty_get_my_sessions_list(),
		   Server == Host, is_process_alive(Pid), not ets:member(Tab, LJID)],
    _ = [Pid ! {mod_event_feed, report} || Pid <- Pids],
    Pids.

%% slice returns the next N sessions as events of a snapshot.
-spec slice(cursor(), pos_integer(), sessions()) -> {[#fact{}], cursor() | done}.
slice(Cursor, N, Tab) ->
    slice(Cursor, N, erlang:system_time(millisecond), Tab, []).

slice(Cursor, 0, _T, _Tab, Facts) ->
    {lists:reverse(Facts), Cursor};
slice(Cursor, N, T, Tab, Facts) ->
    case next(Cursor, Tab) of
	'$end_of_table' ->
	    {lists:reverse(Facts), done};
	LJID ->
	    [#known{host = Host, user = User, presence = Presence}] = ets:lookup(Tab, LJID),
	    Fact = #fact{kind = <<"snapshot">>, host = Host, user = User, t = T, stanza = Presence},
	    slice(LJID, N - 1, T, Tab, [Fact | Facts])
    end.

next(start, Tab) -> ets:first(Tab);
next(LJID, Tab) -> ets:next(Tab, LJID).

%% leave ends the sessions whose processes are gone: when the server stops, they
%% may be killed before they can say so.
-spec leave(sessions()) -> [#fact{}].
leave(Tab) ->
    Gone = [Session || Session <- ets:tab2list(Tab), not is_process_alive(Session#known.pid)],
    end_all(Gone, Tab).

%% save is for a later start, perhaps of the module only.
-spec save(sessions()) -> saved().
save(Tab) -> {this_run(), ets:tab2list(Tab)}.

%% restore takes back the sessions that live on and ends the others.
-spec restore(saved(), sessions()) -> [#fact{}].
restore({Run, Sessions}, Tab) ->
    Same = Run == this_run(),
    {Alive, Gone} = lists:partition(fun(#known{pid = Pid}) -> Same andalso is_process_alive(Pid) end,
				    Sessions),
    _ = [insert(Session, Tab) || Session <- Alive],
    end_all(Gone, Tab).

%% Another run of the server may give the same process identifiers again.
this_run() ->
    {node(), os:getpid(), erlang:system_info(start_time)}.

end_all(Gone, Tab) ->
    T = erlang:system_time(millisecond),
    lists:flatmap(fun(#known{ljid = LJID} = Session) ->
			  ets:delete(Tab, LJID),
			  end_of(Session, T, <<"system-shutdown">>)
		  end, Gone).

end_of(#known{host = Host, user = User, presence = Presence}, T, Reason) ->
    Offline = #fact{kind = <<"offline">>, host = Host, user = User, t = T,
		    stanza = made(User, [{<<"type">>, <<"unavailable">>}])},
    [Offline || Presence /= none]
	++ [#fact{kind = <<"session-end">>, host = Host, user = User, t = T,
		  attrs = [{<<"reason">>, Reason}]}].

session(LJID, Pid, #fact{host = Host, user = User}) ->
    #known{ljid = LJID, pid = Pid, host = Host, user = User}.

%% The presence of an event that was lost is not known.
presence(#fact{stanza = none, user = User}) -> made(User, []);
presence(#fact{stanza = Stanza}) -> Stanza.

made(User, Attrs) ->
    term_to_binary(#xmlel{name = <<"presence">>,
			  attrs = [{<<"xmlns">>, ?NS_CLIENT}, {<<"from">>, User} | Attrs]}).
