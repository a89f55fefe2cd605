import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.transport.Netty4Plugin;

/**
 * Starts one real Elasticsearch 7 node: EsNode HOME CONFIG_DIR. Of version 7 only the server core is published, without the
 * module of data streams: the node is one of those that take daily indices.
 */
public class EsNode extends Node {
    private EsNode(Environment env) {
        super(env, List.of(Netty4Plugin.class), true);
    }

    public static void main(String[] args) throws Exception {
        var base = Settings.builder().put("path.home", Path.of(args[0]).toAbsolutePath().toString()).build();
        LogConfigurator.registerErrorListener();
        var env = InternalSettingsPreparer.prepareEnvironment(base, Map.of(), Path.of(args[1]).toAbsolutePath(), () -> "node");
        LogConfigurator.setNodeName(Node.NODE_NAME_SETTING.get(env.settings()));
        LogConfigurator.configure(env);
        Node node = new EsNode(env);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> { try { node.close(); } catch (Exception e) { e.printStackTrace(); } }));
        node.start();
        Thread.currentThread().join(); // the node's own threads are daemons
    }
}
